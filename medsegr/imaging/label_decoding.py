"""NRRD, NIfTI and PNG label maps from untrusted hands: first the grid that a file claims, then its values.

Called by `label_reading`, which compares the grid before a single value is inflated. No more bytes are read than the
claimed grid can hold, and no other file is ever opened.
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import nrrd
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsegr.errors import ImageError
from medsegr.imaging.volume_reading import is_nifti_header

EXPECTED = "an NRRD file with its data attached (raw or gzip) or a NIfTI file is expected"
MAX_HEADER = 64 * 1024
MAX_VALUE_BYTES = 8
VALUE_BYTES = {
    **dict.fromkeys(("int8", "int8_t", "signed char", "uint8", "uint8_t", "uchar", "unsigned char"), 1),
    **dict.fromkeys(("int16", "int16_t", "short", "uint16", "uint16_t", "ushort", "unsigned short"), 2),
}
"""Of the NRRD types that masks mostly have."""
NRRD_SPACES = {  # to RAS; everything else is LPS, as ITK takes it
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class LabelFile:
    """What a file claims: `shape` (X, Y) or (X, Y, Z), x fastest; `affine` [4, 4] to RAS millimetres, None where it
    tells no place. `load` reads the values, raw and in that shape.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None
    suffix: str
    load: Callable[[], NDArray[Any]]


def open_labels(path: Path, what: str) -> LabelFile:
    """Read the header of `path`; raises `ImageError`, which names the file as `what`."""
    with decoding(what):
        with path.open("rb") as stream:
            head = stream.read(MAX_HEADER)
        if head.startswith(b"NRRD"):
            return _open_nrrd(path, head, what)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return _open_png(path, what)
        packed = head.startswith(b"\x1f\x8b")
        if packed:
            with gzip.open(path, "rb") as inflated:
                head = inflated.read(540)
        if is_nifti_header(head):
            return _open_nifti(path, head[:540], packed, what)
    raise ImageError(f"{what} is damaged or of an unsupported kind; {EXPECTED}.")


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged or hostile bytes into one `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    # Broad on purpose: the decoders raise almost every type on damaged or hostile bytes.
    except Exception as error:
        raise ImageError(f"{what} cannot be decoded ({type(error).__name__}); {EXPECTED}.") from error


def _open_nrrd(path: Path, head: bytes, what: str) -> LabelFile:
    end = re.search(rb"\r?\n\r?\n", head)
    lines = (head[: end.end()] if end else head).splitlines(keepends=True)
    fields = {name.lower().replace(" ", ""): value for name, value in nrrd.read_header(lines).items()}
    if "datafile" in fields:
        raise ImageError(f"{what} keeps its values in another file; {EXPECTED}.")
    if end is None:
        raise ImageError(f"{what} has no values after its header; {EXPECTED}.")
    encoding = str(fields.get("encoding", "")).lower()
    if encoding not in ("raw", "gzip", "gz") or any(fields.get(key) for key in ("byteskip", "lineskip")):
        raise ImageError(f"{what} is not plain NRRD with encoding raw or gzip; {EXPECTED}.")
    shape = _checked_shape(fields["sizes"], what)
    plain = {"type": fields["type"], "dimension": len(shape), "sizes": np.asarray(shape), "encoding": "raw"}
    most = _count(shape) * VALUE_BYTES.get(str(fields["type"]).lower(), MAX_VALUE_BYTES)
    plain |= {"endian": fields["endian"]} if "endian" in fields else {}

    def load() -> NDArray[Any]:
        with decoding(what), path.open("rb") as stream:
            stream.seek(end.end())
            packed: IO[bytes] = stream if encoding == "raw" else gzip.GzipFile(fileobj=stream)  # type: ignore[assignment]
            data = packed.read(most + 1)
            values: NDArray[Any] = nrrd.read_data(plain, io.BytesIO(data))
            if len(data) != values.nbytes:
                raise ImageError(f"{what} holds more data than its header says; {EXPECTED}.")
            return values

    return LabelFile(shape, _nrrd_affine(fields, len(shape)), ".nrrd", load)


def _nrrd_affine(fields: dict[str, Any], n: int) -> NDArray[np.float64] | None:
    """RAS affine of an NRRD header's space; 2-D is completed by a unit slice axis."""
    if "spacedirections" not in fields:
        return None
    affine = np.eye(4)
    affine[:n, :n] = np.asarray(fields["spacedirections"], float)[:n, :n].T
    affine[:n, 3] = np.asarray(fields.get("spaceorigin", np.zeros(n)), float)[:n]
    signs = NRRD_SPACES.get(str(fields.get("space", "")).lower(), (-1.0, -1.0, 1.0))
    return np.asarray(np.diag([*signs, 1.0]) @ affine)


def _open_nifti(path: Path, head: bytes, packed: bool, what: str) -> LabelFile:
    kind: Any = nib.Nifti2Image if head[4:8] == b"n+2\x00" else nib.Nifti1Image
    header = kind.header_class.from_fileobj(io.BytesIO(head), check=False)
    shape = _checked_shape(header.get_data_shape(), what)
    dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    if dtype.kind not in "biuf":
        raise ImageError(f"{what} holds values of type {dtype}; one number per voxel is expected.")
    if not 0 < offset <= MAX_HEADER:
        raise ImageError(f"{what} has its values at byte {offset}; at most {MAX_HEADER} is expected.")

    def load() -> NDArray[Any]:
        size = offset + _count(shape) * dtype.itemsize
        with decoding(what), gzip.open(path, "rb") if packed else path.open("rb") as stream:
            data = stream.read(size + 1)
            if len(data) != size:
                found = "more" if len(data) > size else "less"
                raise ImageError(f"{what} holds {found} data than its header says; {EXPECTED}.")
            values: NDArray[Any] = np.asanyarray(kind.from_bytes(data).dataobj).reshape(shape)
            return values

    return LabelFile(
        shape, np.asarray(header.get_best_affine(), float), ".nii.gz" if packed else ".nii", load
    )


def _open_png(path: Path, what: str) -> LabelFile:
    with Image.open(path, formats=("PNG",)) as image:
        width, height = image.size
        if not (image.mode in {"1", "L", "P"} or image.mode.startswith("I")):
            raise ImageError(f"{what} is a PNG of mode {image.mode}; one number per pixel is expected.")

    def load() -> NDArray[Any]:
        with decoding(what), Image.open(path, formats=("PNG",)) as image:
            if image.mode == "1":  # Pillow's bits are 0 and 255
                return (np.asarray(image.convert("L")) > 0).T
            return np.asarray(image).T

    return LabelFile((width, height), None, ".png", load)


def _checked_shape(sizes: Any, what: str) -> tuple[int, ...]:
    shape = tuple(int(n) for n in sizes)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3) or any(n < 1 for n in shape):
        raise ImageError(f"{what} has shape {shape}; two or three axes of at least one voxel are expected.")
    return shape


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=object))
