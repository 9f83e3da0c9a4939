"""Frames of a DICOM file as viewers get them: native little-endian pixels, so that a browser needs no codec.

Grey values stay the stored ones (rescaling, windows and MONOCHROME1 are the viewer's); colour becomes RGB, pixel by pixel,
whatever it was stored as. `as_delivered` makes a header say so. Called by the WADO routes; never writes to a file it is given.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_pixel_data_frame
from pydicom.pixel_data_handlers.util import apply_color_lut, get_expected_length, pixel_dtype
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medsegr.dicom.codecs import PALETTES, as_rgb, decode, one_frame
from medsegr.errors import ImageError

FLOATING = {0x0010: "", 0x0008: "f4", 0x0009: "f8"}
"""Elements of group 7FE0 that hold pixels, and the type of those that are no integers."""


class NoSuchFrame(ImageError):
    """A frame's number is beyond those of the instance."""


def load_header(source: Path | BinaryIO) -> Dataset:
    """Everything before the pixels; without a meta header, the transfer syntax is the uncompressed one it parses as.

    A stream is left where the pixel data begin.
    """
    dataset = pydicom.dcmread(source, stop_before_pixels=True, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        explicit = ExplicitVRLittleEndian if dataset.is_little_endian else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if dataset.is_implicit_VR else explicit
    return dataset


def read_frames(path: Path, numbers: Sequence[int], *, stored: bool = False) -> list[bytes]:
    """The frames of these numbers, counted from 1, as pixels, or with `stored` as the bytes that the file holds.

    Raises `NoSuchFrame`, `ImageError` (no image, damaged, or of a codec that is not here) and `OSError`.
    """
    with path.open("rb") as stream:
        header = load_header(stream)
        frames = frame_count(header, numbers)
        syntax = header.file_meta.TransferSyntaxUID
        if syntax.is_encapsulated:
            raw = _encapsulated(path, numbers, frames)
            return raw if stored else [_pixels(decode(one, header), header) for one in raw]
        if syntax == DeflatedExplicitVRLittleEndian:
            whole = pydicom.dcmread(path)
            pixels = io.BytesIO(whole.get("PixelData", b""))
            return [_native(pixels, (0, "OW", ""), header, number) for number in numbers]
        place = _find_pixels(stream, header)
        return [_native(stream, place, header, number) for number in numbers]


def as_delivered(header: Dataset) -> None:
    """Change a header in place so that it describes what `read_frames` gives."""
    if "Rows" not in header or "Columns" not in header:
        return
    header.AvailableTransferSyntaxUID = ExplicitVRLittleEndian
    if not _is_colour(header):
        return
    if str(header.PhotometricInterpretation).upper() == "PALETTE COLOR":
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
        for key in PALETTES:
            if key in header:
                del header[key]
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PlanarConfiguration = 3, "RGB", 0


def frame_count(header: Dataset, numbers: Sequence[int]) -> int:
    """How many frames the instance has; raises `NoSuchFrame` if one of `numbers` is beyond them."""
    rows, columns = header.get("Rows") or 0, header.get("Columns") or 0
    if rows < 1 or columns < 1:
        raise NoSuchFrame("The instance is not an image; it has no frames.")
    try:
        frames = max(int(header.get("NumberOfFrames") or 1), 1)
    except (ValueError, TypeError):
        frames = 1
    if any(not 1 <= number <= frames for number in numbers):
        raise NoSuchFrame(f"The instance has {frames} frame{'s' * (frames > 1)}, counted from 1.")
    return frames


def _is_colour(header: Dataset) -> bool:
    palette = str(header.get("PhotometricInterpretation", "")).upper() == "PALETTE COLOR"
    return int(header.get("SamplesPerPixel", 1) or 1) == 3 or (
        palette and all(key in header for key in PALETTES)
    )


def _encapsulated(path: Path, numbers: Sequence[int], frames: int) -> list[bytes]:
    data = pydicom.dcmread(path, force=True).get("PixelData")
    if not data:
        raise ImageError("The instance has no pixel data.")
    try:
        wanted = dict.fromkeys(numbers, b"")
        for place, frame in enumerate(islice(generate_pixel_data_frame(data, frames), max(numbers)), start=1):
            if place in wanted:
                wanted[place] = frame
    except (ValueError, OSError) as error:
        raise ImageError(
            "The pixel data of the instance are damaged; its frames cannot be told apart."
        ) from error
    if not all(wanted.values()):
        raise ImageError("The pixel data of the instance end before the frame that was asked for.")
    return [wanted[number] for number in numbers]


def _find_pixels(stream: BinaryIO, header: Dataset) -> tuple[int, str, str]:
    """From the beginning of the pixel data element: where its value starts, its VR and the type of floating values."""
    order: Literal["little", "big"] = "little" if header.is_little_endian else "big"
    group, element = (int.from_bytes(stream.read(2), order) for _ in range(2))
    if group != 0x7FE0 or element not in FLOATING:
        raise ImageError("The instance has no pixel data.")
    if header.is_implicit_VR:
        return stream.tell() + 4, "OW", FLOATING[element]
    return stream.tell() + 8, stream.read(2).decode("ascii", "replace"), FLOATING[element]


def _native(stream: BinaryIO, place: tuple[int, str, str], header: Dataset, number: int) -> bytes:
    """One frame of uncompressed pixels, of which nothing else is read."""
    start, vr, kind = place
    if int(header.BitsAllocated) == 1:
        return _bits(stream, start, int(header.Rows) * int(header.Columns), number)
    one = one_frame(header, b"")
    length = get_expected_length(one)
    stream.seek(start + (number - 1) * length)
    raw = stream.read(length)
    if len(raw) < length:
        raise ImageError("The pixel data of the instance end before the frame that was asked for.")
    if kind:
        order = "<" if header.is_little_endian else ">"
        return np.frombuffer(raw, f"{order}{kind}").astype(f"<{kind}").tobytes()
    if header.is_little_endian and not _is_colour(header):
        return raw
    one.PixelData = raw + b"\0" * (length % 2)
    one["PixelData"].VR = vr
    return _pixels(as_rgb(one.pixel_array, header), header)


def _bits(stream: BinaryIO, start: int, size: int, number: int) -> bytes:
    """One frame of single bits, which need not begin at a whole byte in the file, from a whole byte on."""
    first, last = (number - 1) * size, number * size
    stream.seek(start + first // 8)
    raw = stream.read((last + 7) // 8 - first // 8)
    if len(raw) * 8 < size:
        raise ImageError("The pixel data of the instance end before the frame that was asked for.")
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    return np.packbits(bits[first % 8 : first % 8 + size], bitorder="little").tobytes()


def _pixels(values: NDArray[Any], header: Dataset) -> bytes:
    """[H, W] or [H, W, 3] as little-endian bytes of the type that the header, as delivered, names."""
    if str(header.get("PhotometricInterpretation", "")).upper() == "PALETTE COLOR" and values.ndim == 2:
        colours = apply_color_lut(values, header)
        return np.asarray(colours if colours.dtype == np.uint8 else colours >> 8, np.uint8).tobytes()
    return values.astype(pixel_dtype(header).newbyteorder("<")).tobytes()
