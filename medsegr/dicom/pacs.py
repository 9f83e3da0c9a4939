"""A PACS behind DICOMweb: lists series of all modalities, downloads one, stores new instances.

Every request logs in afresh, so a token that is renewed in its file is used from then on. Nothing is retried or cached, and no
UID is logged.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from requests.adapters import HTTPAdapter

from medsegr.dicom.archive import ArchiveError, SeriesInfo, UnknownSeries
from medsegr.dicom.headers import valid_uid

TIMEOUT_S = (10.0, 120.0)
"""For connecting, and for each wait for more bytes."""
PAGE = 1000
FIELDS = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "BodyPartExamined",
    "NumberOfSeriesRelatedInstances",
    "PatientID",
)
TAGS = {
    "StudyInstanceUID": "0020000D",
    "SeriesInstanceUID": "0020000E",
    "SOPInstanceUID": "00080018",
    "Modality": "00080060",
    "SeriesDescription": "0008103E",
    "BodyPartExamined": "00180015",
    "NumberOfSeriesRelatedInstances": "00201209",
    "PatientID": "00100020",
}
ANY_SYNTAX = (("application/dicom", "*"),)

Found = dict[str, Any]


@dataclass(frozen=True)
class PacsLogin:
    """How this server logs in to a PACS: a bearer token out of a file or given, else a user and a password, else not at all."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None

    def headers(self) -> Mapping[str, str]:
        """Headers for one request; raises `ArchiveError` where the token's file cannot be read."""
        token = self.token
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ArchiveError(
                    f"The file of the PACS' token cannot be read ({type(error).__name__}); one token is expected in it."
                ) from error
        if token:
            return {"Authorization": f"Bearer {token}"}
        if not (self.user and self.password):
            return {}
        basic = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {basic}"}


@dataclass(frozen=True)
class Pacs:
    """A DICOMweb server. `prefixes` are where QIDO, WADO and STOW lie below `url`; `search` are QIDO filters of its listing."""

    url: str
    login: PacsLogin = PacsLogin()
    prefixes: Mapping[str, str] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: tuple[float, float] = TIMEOUT_S
    local = False

    @property
    def name(self) -> str:
        """The URL without a user or password."""
        parts = urlsplit(self.url.rstrip("/"))
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))

    def path(self, service: str) -> str:
        """Where `qido`, `wado` or `stow` lies below the root, "" for the root itself."""
        return self.prefixes.get(service) or ""

    def headers(self) -> Mapping[str, str]:
        """Headers that log this server in, fresh for each request."""
        return self.login.headers()

    def series(self) -> list[SeriesInfo]:
        """All series as they are now; see `Archive`."""
        with self._client() as client:
            found = _all_pages(client.search_for_series, "SeriesInstanceUID", FIELDS, dict(self.search))
        return [info for info in map(_info, found) if info is not None]

    def instances(self, series_uid: str) -> frozenset[str]:
        """SOPInstanceUIDs of a series as it is now; see `Archive`."""
        with self._client() as client:
            study = _study_of(client, series_uid)

            def search(**more: Any) -> list[Found]:
                return list(client.search_for_instances(study, series_uid, **more))

            found = _all_pages(search, "SOPInstanceUID", ("SOPInstanceUID",), {})
        if not found:
            raise _unknown()
        return frozenset(str(_value(one, "SOPInstanceUID")) for one in found)

    def fetch(self, series_uid: str, into: Path) -> list[Path]:
        """Download a series into `into`, each file as the PACS has it; see `Archive`."""
        paths: list[Path] = []
        with self._client() as client:
            study = _study_of(client, series_uid)
            for dataset in client.iter_series(study, series_uid, media_types=ANY_SYNTAX):
                uid = str(dataset.get("SOPInstanceUID", ""))
                name = uid if uid and valid_uid(uid) else f"unnamed-{len(paths):06d}"
                paths.append(into / f"{name}.dcm")
                dataset.save_as(paths[-1])
        if not paths:
            raise _unknown()
        return paths

    def store(self, datasets: Sequence[Dataset]) -> None:
        """STOW, one request for each instance; see `Archive`."""
        for dataset in datasets:
            with self._client() as client:
                reply = client.store_instances([dataset])
            if reply.get("FailedSOPSequence"):
                reason = reply.FailedSOPSequence[0].get("FailureReason", "?")
                raise ArchiveError(f"The PACS did not store the new instance (failure reason {reason}).")

    @contextmanager
    def _client(self) -> Iterator[DICOMwebClient]:
        """A client of its own for each call, since sessions are not made for several threads; errors become sentences."""
        with requests.Session() as session, _sentences():
            session.auth = self._log_in
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Patient(self.timeout_s))
            client = DICOMwebClient(
                self.url.rstrip("/"),
                session=session,
                qido_url_prefix=self.path("qido") or None,
                wado_url_prefix=self.path("wado") or None,
                stow_url_prefix=self.path("stow") or None,
                permissive_uid=True,
            )
            client.set_http_retry_params(retry=False)
            yield client

    def _log_in(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self.headers())
        return request


class _Patient(HTTPAdapter):
    """Gives every request a timeout, which requests has none of."""

    def __init__(self, timeout_s: tuple[float, float]) -> None:
        super().__init__()
        self._timeout_s = timeout_s

    def send(self, *arguments: Any, **more: Any) -> requests.Response:
        more["timeout"] = more.get("timeout") or self._timeout_s
        return super().send(*arguments, **more)


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 404:
            raise _unknown() from error
        if status in {401, 403}:
            raise ArchiveError(
                f"The PACS refuses this server's login (status {status}); a valid user and password, or token, is expected."
            ) from error
        raise ArchiveError(f"The PACS refused a request with status {status}.") from error
    except requests.Timeout as error:
        raise ArchiveError("The PACS took too long to answer; try again later.") from error
    except (json.JSONDecodeError, requests.exceptions.JSONDecodeError) as error:
        raise ArchiveError(
            "The PACS answers with what is no DICOM JSON; the URL of DICOMweb is expected."
        ) from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise ArchiveError("The URL of the PACS is not usable; http://host:port/path is expected.") from error
    except requests.RequestException as error:
        raise ArchiveError(f"The PACS cannot be reached ({type(error).__name__}).") from error
    except (InvalidDicomError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(
            f"The PACS answers with what is no DICOMweb ({type(error).__name__}); the URL of DICOMweb is expected."
        ) from error
    except OSError as error:
        raise ArchiveError(
            f"What the PACS sends cannot be kept ({error.strerror or type(error).__name__}); room on the disk is expected."
        ) from error


def _all_pages(
    search: Callable[..., list[Found]], uid: str, fields: Sequence[str], filters: dict[str, Any]
) -> list[Found]:
    """Every result once: pages until one brings nothing new, which also ends with a server that ignores `offset`."""
    found: dict[str, Found] = {}
    asked = 0
    while True:
        page = search(limit=PAGE, offset=asked, fields=list(fields), search_filters=filters)
        before = len(found)
        for one in page:
            found.setdefault(str(_value(one, uid)), one)
        asked += len(page)
        if len(found) == before:
            return list(found.values())


def _study_of(client: DICOMwebClient, series_uid: str) -> str:
    if not valid_uid(series_uid):
        raise _unknown()
    found = client.search_for_series(
        fields=["StudyInstanceUID"], search_filters={"SeriesInstanceUID": series_uid}, limit=2
    )
    uids = [
        str(_value(one, "StudyInstanceUID"))
        for one in found
        if _value(one, "SeriesInstanceUID") == series_uid
    ]
    if not uids:
        raise _unknown()
    return uids[0]


def _info(found: Found) -> SeriesInfo | None:
    uid, study = _value(found, "SeriesInstanceUID"), _value(found, "StudyInstanceUID")
    if not uid or not study:
        return None
    number = _value(found, "NumberOfSeriesRelatedInstances")
    return SeriesInfo(
        str(uid),
        str(study),
        _text(found, "Modality"),
        _text(found, "SeriesDescription"),
        _text(found, "BodyPartExamined"),
        int(number) if str(number or "").isdigit() else None,
        _text(found, "PatientID"),
    )


def _value(found: Found, key: str) -> Any:
    """The first value of an attribute in DICOM JSON, None where there is none."""
    return ((found.get(TAGS[key]) or {}).get("Value") or [None])[0]


def _text(found: Found, key: str) -> str | None:
    value = _value(found, key)
    return str(value).strip() or None if value is not None else None


def _unknown() -> UnknownSeries:
    return UnknownSeries("The PACS has no series of this UID.")
