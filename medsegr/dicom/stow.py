"""STOW-RS without HTTP (PS3.18 section 10.5): the files of a multipart upload, and the reply about what became of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from medsegr.dicom.qido import to_json
from medsegr.dicom.wado import media_parameters
from medsegr.errors import MedSegRError

CHUNK = 1 << 20
MAX_PARTS = 10_000
DICOM = "application/dicom"


class StowError(MedSegRError):
    """An upload whose parts cannot be told apart."""


class Failure(IntEnum):
    """Failure Reason (0008,1197), PS3.18 table 10.5.3-1 and PS3.7 annex C."""

    PROCESSING = 0x0110
    DUPLICATE = 0x0111
    OUT_OF_RESOURCES = 0xA700
    MISMATCH = 0xA900
    NOT_UNDERSTOOD = 0xC000


@dataclass(frozen=True)
class Stored:
    """What became of one uploaded file. `failure` is None for one that is stored; UIDs are "" where unreadable."""

    study: str
    series: str
    sop: str
    sop_class: str
    failure: Failure | None = None


class _Parts:
    """Callbacks of the parser: each part becomes a file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []
        self.foreign = False
        self.ended = False
        self._field = self._value = b""
        self._stream: BinaryIO | None = None

    def begin(self) -> None:
        if len(self.files) >= MAX_PARTS:
            raise StowError(f"An upload may hold {MAX_PARTS} files at most.")
        path = self.folder / f"{len(self.files):05d}.dcm"
        self._stream = path.open("wb")
        self.files.append(path)

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._stream:
            self._stream.write(data[start:end])

    def end(self) -> None:
        if self._stream:
            self._stream.close()
            self._stream = None

    def field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._field.lower() == b"content-type":
            kind = media_parameters(self._value.decode("latin-1")).get("", "")
            self.foreign |= kind not in {DICOM, "application/octet-stream"}
        self._field = self._value = b""

    def finish(self) -> None:
        self.ended = True


def split_upload(body: BinaryIO, content_type: str, folder: Path) -> list[Path]:
    """Write each DICOM file of an upload into `folder`; raises `StowError` if it is no multipart body of DICOM files.

    Nothing is held in memory beyond a piece of the body, whatever its size.
    """
    boundary = media_parameters(content_type).get("boundary", "")
    if not boundary:
        raise StowError(
            'The upload names no boundary; multipart/related; type="application/dicom" is expected.'
        )
    parts = _Parts(folder)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": parts.begin,
            "on_part_data": parts.data,
            "on_part_end": parts.end,
            "on_header_field": parts.field,
            "on_header_value": parts.value,
            "on_header_end": parts.header_end,
            "on_end": parts.finish,
        },
    )
    try:
        while chunk := body.read(CHUNK):
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError as error:
        raise StowError("The upload is not a multipart body with the boundary that it names.") from error
    finally:
        parts.end()
    if not parts.ended:
        raise StowError("The upload ends in the middle; it was not stored.")
    if parts.foreign:
        raise StowError("The upload holds parts that are not application/dicom; DICOM files are expected.")
    if not parts.files:
        raise StowError("The upload holds no file.")
    return parts.files


def reply(outcomes: Iterable[Stored], url: str) -> tuple[int, dict[str, object]]:
    """Status and DICOM JSON of the reply: 200 all stored, 202 some, 409 none."""
    stored, failed, studies = [], [], set()
    for one in outcomes:
        item = [("ReferencedSOPClassUID", one.sop_class), ("ReferencedSOPInstanceUID", one.sop)]
        if one.failure is not None:
            failed.append(to_json([*item, ("FailureReason", str(int(one.failure)))]))
            continue
        studies.add(one.study)
        address = f"{url}/studies/{one.study}/series/{one.series}/instances/{one.sop}"
        stored.append(to_json([*item, ("RetrieveURL", address)]))
    body: dict[str, object] = {}
    if len(studies) == 1:
        body |= to_json([("RetrieveURL", f"{url}/studies/{studies.pop()}")])
    if failed:
        body["00081198"] = {"vr": "SQ", "Value": failed}
    if stored:
        body["00081199"] = {"vr": "SQ", "Value": stored}
    return (200 if not failed else 202 if stored else 409), body
