"""What all DICOMweb routes over a folder share: the instances that a path names, URLs of ours, what a client accepts."""

from __future__ import annotations

from fastapi import Request

from medsegr.dicom.folder import DicomFolder
from medsegr.dicom.headers import Header, valid_uid
from medsegr.dicom.wado import accepted
from medsegr.web.errors import Refusal

PREFIX = "/proxy/dicom"
ROOTS = ("qido", "wado", "stow")
JSON = "application/dicom+json"
NO_STORE = {"Cache-Control": "no-store"}
NAMES = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "sop": "SOPInstanceUID"}


def root_of(root: str) -> str:
    """The service that the path names. Viewers mix them up (metadata are asked of QIDO), so each serves everything."""
    if root not in ROOTS:
        raise Refusal(404, f"There is no such DICOMweb service; {', '.join(ROOTS)} are expected.")
    return root


def url_of(request: Request) -> str:
    """Where this server's WADO-RS begins, as a path: right behind any proxy that a browser may look through."""
    return f"{request.url.path.partition(PREFIX)[0]}{PREFIX}/wado"


def instances(folder: DicomFolder, request: Request) -> tuple[Header, ...]:
    """The instances that the request's path names, never none; raises `Refusal` 400 or 404."""
    uids = {key: request.path_params.get(key, "") for key in NAMES}
    for key, uid in uids.items():
        if uid and not valid_uid(uid):
            raise Refusal(400, f"The {NAMES[key]} in the path is no UID; digits and dots are expected.")
    found = folder.index().find(**uids)
    if not found:
        what = "instance" if uids["sop"] else "series" if uids["series"] else "study"
        raise Refusal(404, f"There is no such {what} in the folder of studies.")
    return found


def expect_json(request: Request) -> None:
    """Raises `Refusal` 406 for a client that accepts no JSON."""
    ranges = accepted(request.headers.get("accept"))
    if not any(one.type != "multipart/related" and _allows_json(one.type) for one in ranges):
        raise Refusal(406, f"This is answered as {JSON} only; the Accept header allows none of it.")


def _allows_json(media_range: str) -> bool:
    return media_range in {"*/*", "application/*", JSON, "application/json"}
