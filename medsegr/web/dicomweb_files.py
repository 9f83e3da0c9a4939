"""WADO-RS of a folder: frames as native pixels, bulk data, and whole instances, series and studies."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from fastapi import APIRouter, Request, Response
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from starlette.responses import StreamingResponse

from medsegr.dicom.folder import DicomFolder
from medsegr.dicom.frames import NoSuchFrame, load_header, read_frames
from medsegr.dicom.headers import Header
from medsegr.dicom.stow import DICOM
from medsegr.dicom.wado import MediaRange, accepted, bulk_value, multipart
from medsegr.dicom.whole_files import native_file, part_10
from medsegr.errors import ImageError
from medsegr.web.dicomweb_edge import NO_STORE, instances
from medsegr.web.errors import Refusal

OCTETS = "application/octet-stream"
NATIVE = frozenset({"", str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)})
IMAGE_TYPES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""Media types of compressed frames by transfer syntax (PS3.18 table 8.7.3-5)."""
AT_ONCE = 16
"""Frames that are held in memory together."""
MAX_FRAMES = 10_000
GONE = "The file of this instance has been removed from the folder of studies."


def add_files(router: APIRouter, folder: DicomFolder) -> None:
    """Add the routes that give pixels and files."""
    one = "/studies/{study}/series/{series}/instances/{sop}"

    @router.get(f"{one}/frames/{{frames}}")
    def frames(request: Request, frames: str) -> Response:
        header = instances(folder, request)[0]
        numbers = _numbers(frames)
        kind, stored, multiple = _frame_type(request, header)
        if not multiple and len(numbers) == 1:
            return Response(_read(header, numbers, stored=stored)[0], media_type=kind, headers=NO_STORE)
        return _multipart(_frames(header, numbers, kind, stored=stored), kind.partition(";")[0])

    @router.get(f"{one}/bulkdata/{{place:path}}")
    def bulk_data(request: Request, place: str) -> Response:
        header = instances(folder, request)[0]
        ranges = [media for media in accepted(request.headers.get("accept")) if media.allows(OCTETS)]
        if not ranges:
            raise Refusal(406, f"Bulk data are sent as {OCTETS} only; the Accept header allows none of it.")
        value = bulk_value(_loaded(header), place)
        if value is None:
            raise Refusal(404, "The instance has no bulk data at this place.")
        if ranges[0].type == OCTETS:
            return Response(value, media_type=OCTETS, headers=NO_STORE)
        return _multipart([(OCTETS, value)], OCTETS)

    @router.get(one)
    def instance(request: Request) -> Response:
        header, media = instances(folder, request)[0], _file_type(request)
        kind, data = _file(header, media.syntax)
        if media.type == DICOM:
            return Response(data, media_type=kind, headers=NO_STORE)
        return _multipart([(kind, data)], DICOM)

    @router.get("/studies/{study}")
    @router.get("/studies/{study}/series/{series}")
    def several(request: Request) -> Response:
        found, media = instances(folder, request), _file_type(request)
        first = _file(found[0], media.syntax)  # so that a refusal still becomes a status
        return _multipart(chain([first], (_file(header, media.syntax) for header in found[1:])), DICOM)


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) > MAX_FRAMES or not all(0 < len(p) < 10 and p.isascii() and p.isdigit() for p in parts):
        raise Refusal(400, "The frames in the path are not a list of numbers such as 1 or 1,2,3.")
    return [int(part) for part in parts]


def _frame_type(request: Request, header: Header) -> tuple[str, bool, bool]:
    """The content type of frames, whether they are sent as stored, and whether a multipart body is wanted."""
    syntax = str(_loaded(header).file_meta.TransferSyntaxUID)
    image = IMAGE_TYPES.get(syntax)
    for media in accepted(request.headers.get("accept")):
        multiple = media.type != OCTETS
        if media.allows(OCTETS) and media.syntax in NATIVE:
            return f"{OCTETS}; transfer-syntax={ExplicitVRLittleEndian}", False, multiple
        if image and media.syntax in {"", syntax} and (media.allows(image) or media.allows(OCTETS)):
            kind = image if media.allows(image) else OCTETS
            return f"{kind}; transfer-syntax={syntax}", True, multiple
    also = f" or {image}" if image else ""
    raise Refusal(
        406, f"Frames of this instance are sent as {OCTETS}{also}; the Accept header allows neither."
    )


def _frames(
    header: Header, numbers: Sequence[int], kind: str, *, stored: bool
) -> Iterator[tuple[str, bytes]]:
    """Frames with their content type; the first ones are read at once, so that a refusal still becomes a status."""
    groups = [numbers[start : start + AT_ONCE] for start in range(0, len(numbers), AT_ONCE)]
    first = _read(header, groups[0], stored=stored)
    rest = (frame for group in groups[1:] for frame in _read(header, group, stored=stored))
    return ((kind, frame) for frame in chain(first, rest))


def _read(header: Header, numbers: Sequence[int], *, stored: bool) -> list[bytes]:
    try:
        return read_frames(header.path, numbers, stored=stored)
    except NoSuchFrame as error:
        raise Refusal(404, str(error)) from error
    except ImageError as error:
        raise Refusal(406, str(error)) from error
    except OSError as error:
        raise Refusal(404, GONE) from error


def _file_type(request: Request) -> MediaRange:
    for media in accepted(request.headers.get("accept")):
        if media.allows(DICOM):
            return media
    raise Refusal(406, f"Instances are sent as {DICOM} only; the Accept header allows none of it.")


def _file(header: Header, syntax: str) -> tuple[str, bytes]:
    """Content type and bytes of an instance as it is stored, or uncompressed where that is asked for."""
    stored = str(_loaded(header).file_meta.TransferSyntaxUID)
    try:
        if syntax in {"", stored}:
            return f"{DICOM}; transfer-syntax={stored}", part_10(header.path)
        if syntax == ExplicitVRLittleEndian:
            return f"{DICOM}; transfer-syntax={syntax}", native_file(header.path)
    except ImageError as error:
        raise Refusal(406, str(error)) from error
    except OSError as error:
        raise Refusal(404, GONE) from error
    raise Refusal(
        406,
        "The instance is not kept in this transfer syntax; ask for any, or for Explicit VR Little Endian.",
    )


def _loaded(header: Header) -> Dataset:
    try:
        return load_header(header.path)
    except OSError as error:
        raise Refusal(404, GONE) from error


def _multipart(parts: Iterable[tuple[str, bytes]], kind: str) -> Response:
    boundary = uuid.uuid4().hex
    media_type = f'multipart/related; type="{kind}"; boundary={boundary}'
    return StreamingResponse(multipart(parts, boundary), media_type=media_type, headers=NO_STORE)
