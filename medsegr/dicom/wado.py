"""WADO-RS without HTTP (PS3.18 section 10.4): headers as DICOM JSON, bulk data, what a client accepts, multipart bodies.

Pure helpers of `medsegr.web.dicomweb`; nothing here opens a socket or writes a file.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW", "US or OW", "US or SS or OW"})
PIXELS = frozenset({0x7FE00010, 0x7FE00008, 0x7FE00009})
MAX_INLINE = 1024
"""Binary values longer than this many bytes are named by a URL instead of being written into the header."""
SYNTAX = "transfer-syntax"
WEIGHT = re.compile(r"[0-9]{1,3}(?:\.[0-9]{0,3})?")


@dataclass(frozen=True)
class MediaRange:
    """One entry of an Accept header: `multipart/related; type="application/octet-stream"` has the part type."""

    type: str
    part: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def syntax(self) -> str:
        """The transfer syntax that is asked for, "" for any."""
        named = self.parameters.get(SYNTAX, "")
        return "" if named == "*" else named

    def allows(self, media_type: str) -> bool:
        """Whether this range allows a media type, within a multipart body if it is one."""
        wanted = (self.part or "*/*") if self.type == "multipart/related" else self.type
        return wanted in {"*/*", media_type, f"{media_type.partition('/')[0]}/*"}


def accepted(header: str | None) -> list[MediaRange]:
    """The media ranges of an Accept header, preferred ones first; everything if there is none."""
    ranges = []
    for entry in _split(header or "*/*"):
        parameters = media_parameters(entry)
        kind = parameters.pop("", "").lower()
        weight = parameters.pop("q", "1")
        quality = float(weight) if WEIGHT.fullmatch(weight) else 1.0
        if quality > 0:
            ranges.append((quality, MediaRange(kind, parameters.get("type", "").lower(), parameters)))
    return [one for _, one in sorted(ranges, key=lambda item: -item[0])]


def media_parameters(value: str) -> dict[str, str]:
    """The parameters of a media type by lower-case name, quotes removed; the type itself under ""."""
    message = Message()
    message["content-type"] = value
    pairs = message.get_params(failobj=[], unquote=True)
    return {"": pairs[0][0].strip().lower()} | {k.strip().lower(): v for k, v in pairs[1:]} if pairs else {}


def multipart(parts: Iterable[tuple[str, bytes]], boundary: str) -> Iterator[bytes]:
    """A multipart/related body (RFC 2387) out of (content type, bytes), piece by piece."""
    for content_type, data in parts:
        yield f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        yield data
    yield f"\r\n--{boundary}--\r\n".encode()


def to_dicom_json(dataset: Dataset, url: str, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """A data set in the DICOM JSON model (PS3.18 annex F); long binary values become `url`/<place in the data set>.

    An element that cannot be understood is left out, and so are pixels. Unlike pydicom's own conversion this changes no
    global setting, so other threads may read files meanwhile, and it keeps values that merely break a length limit.
    """
    result = {}
    for tag in sorted(dataset.keys()):
        key = f"{int(tag):08X}"
        if int(tag) in PIXELS or tag.group < 0x0008:
            continue
        try:
            result[key] = _element_json(dataset[tag], url, (*path, key))
        # Broad on purpose: pydicom converts values when they are first touched, and damaged ones raise almost anything.
        except Exception:  # noqa: BLE001
            continue
    if not path and "00080005" in result:
        result["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # JSON is UTF-8 whatever the file was
    return result


def bulk_value(dataset: Dataset, path: str) -> bytes | None:
    """The binary value at the place that `to_dicom_json` named, such as `00880200/0/00420011`; None if there is none."""
    steps, where = path.split("/"), dataset
    if not all(step.isascii() and step.isalnum() for step in steps) or len(steps) % 2 == 0:
        return None
    try:
        for tag, item in zip(steps[:-1:2], steps[1::2], strict=True):
            where = where[int(tag, 16)].value[int(item)]
        value = where[int(steps[-1], 16)].value
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None
    return value if isinstance(value, bytes) else None


def _element_json(element: DataElement, url: str, path: tuple[str, ...]) -> dict[str, Any]:
    vr = str(element.VR)
    if vr == "SQ":
        items = [to_dicom_json(item, url, (*path, str(n))) for n, item in enumerate(element.value)]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    if isinstance(element.value, bytes) and vr in BINARY:
        written = vr if len(vr) == 2 else "OW"
        if not element.value:
            return {"vr": written}
        if len(element.value) > MAX_INLINE:
            return {"vr": written, "BulkDataURI": f"{url}/{'/'.join(path)}"}
        return {"vr": written, "InlineBinary": base64.b64encode(element.value).decode()}
    written_json: dict[str, Any] = element.to_json_dict(None, 0)
    values = written_json.get("Value", [])
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        finite = [v if not isinstance(v, float) or math.isfinite(v) else None for v in values]
        written_json["Value"] = finite  # JSON has no NaN and no infinity
    return written_json


def _split(header: str) -> Iterator[str]:
    """The entries of a list header; commas within quotes do not separate."""
    entry, quoted = "", False
    for letter in header:
        quoted ^= letter == '"'
        if letter == "," and not quoted:
            yield entry
            entry = ""
        else:
            entry += letter
    if entry.strip():
        yield entry
