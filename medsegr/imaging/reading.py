"""`read_image`: any supported file or folder becomes a `Picture` or a `Volume`, or an `ImageError` of one
sentence.

The content decides the type; the suffix only helps where the content is silent (DICOM files without a
preamble).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image

from medsegr.errors import ImageError
from medsegr.imaging.dicom_headers import looks_like_dicom
from medsegr.imaging.dicom_reading import read_dicom_file, read_dicom_folder
from medsegr.imaging.types import Picture, Volume
from medsegr.imaging.volume_reading import is_nifti_header, read_nifti, read_nrrd

EXPECTED = (
    "a PNG, JPEG, NIfTI (.nii, .nii.gz), NRRD or DICOM file, or a folder with one DICOM series, is expected"
)

MODALITIES = {
    "CR": "XR", "DX": "XR", "DR": "XR", "MG": "XR", "PX": "XR", "IO": "XR", "RG": "XR", "XA": "XR",
    "RF": "XR", "OP": "FUNDUS", "OPT": "FUNDUS", "XC": "PHOTO", "ES": "PHOTO", "SM": "MICRO", "GM": "MICRO",
    "IVUS": "US", "DMS": "DERM",
}  # fmt: skip


class Format(Enum):
    """What a file is, by its first bytes."""

    PICTURE = "picture"
    NIFTI = "NIfTI"
    NRRD = "NRRD"
    DICOM = "DICOM"


def canonical_modality(modality: str | None) -> str | None:
    """The modality's name in this project: DICOM's CR, DX, MG... become XR and so on; unknown ones stay."""
    code = (modality or "").strip().upper()
    return MODALITIES.get(code, code) or None


def read_image(path: Path | str, modality: str | None = None, stack: int | None = None) -> Picture | Volume:
    """Read a PNG, JPEG, NIfTI, NRRD or DICOM file, or a folder that holds one DICOM series.

    A picture file or a single DICOM image gives a `Picture`; NIfTI, NRRD, multi-frame DICOM and series give a
    `Volume` (with one slice where the file is 2-D). `modality` overrides what the file says.
    `stack` is the number, counted from 1, of the one to read where a DICOM series has several; see `dicom_series.stacks`.

    Raises:
        ImageError: the path is missing, empty, damaged, unsupported, holds non-finite values or no single
        image.
    """
    path = Path(path)
    wanted = canonical_modality(modality)
    if path.is_dir():
        with _decoding(path):
            return _relabel(read_dicom_folder(path, stack), wanted)
    kind = sniff(path)
    with _decoding(path):
        if kind is Format.PICTURE:
            return _read_picture(path, wanted)
        if kind is Format.DICOM:
            return _relabel(read_dicom_file(path, stack), wanted)
        return read_nifti(path, wanted) if kind is Format.NIFTI else read_nrrd(path, wanted)


def sniff(path: Path) -> Format:
    """Tell a file's format from its content; raises `ImageError` where it is missing, empty or of no
    supported kind.
    """
    if not path.is_file():
        raise ImageError(f"{path.name or path} does not exist or is not a regular file; {EXPECTED}.")
    try:
        with path.open("rb") as stream:
            head = stream.read(600)
    except OSError as error:
        raise ImageError(f"{path.name} cannot be read ({error.strerror}); {EXPECTED}.") from error
    if not head:
        raise ImageError(f"{path.name} is empty (0 bytes); {EXPECTED}.")
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return Format.PICTURE
    if head[128:132] == b"DICM":
        return Format.DICOM
    if head.startswith(b"NRRD"):
        return Format.NRRD
    if is_nifti_header(_inflated(path, head)):
        return Format.NIFTI
    if looks_like_dicom(path):
        return Format.DICOM
    raise ImageError(f"{path.name} is damaged or of an unsupported kind; {EXPECTED}.")


def _inflated(path: Path, head: bytes) -> bytes:
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        with gzip.open(path, "rb") as stream:
            return stream.read(600)
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"{path.name} is a damaged gzip file; {EXPECTED}.") from error


def _read_picture(path: Path, modality: str | None) -> Picture:
    """PNG and JPEG, on the stored grid (no EXIF rotation); grey [H, W] uint8 or uint16, colour [H, W, 3]
    uint8.
    """
    with Image.open(path, formats=("PNG", "JPEG", "MPO")) as image:
        image.load()
        if image.mode.startswith("I"):  # 16-bit PNG, as I;16 or I depending on Pillow's version
            pixels = np.asarray(image).astype(np.uint16)
        elif image.mode in {"1", "L", "LA"}:
            pixels = np.asarray(image.convert("L"))
        else:
            pixels = np.asarray(image.convert("RGB"))
    return Picture(pixels, modality, None)


def _relabel(image: Picture | Volume, modality: str | None) -> Picture | Volume:
    """Give a DICOM image its canonical or overriding modality."""
    name = modality or canonical_modality(image.modality)
    if isinstance(image, Volume):
        return Volume(image.voxels, image.affine, name, image.body_part, image.acquisition_axis)
    return Picture(image.pixels, name, image.spacing_mm, image.body_part)


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged bytes into one `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    # Broad on purpose: the decoders of five formats raise almost every type on damaged or hostile bytes.
    except Exception as error:
        reason = (
            " ".join(str(error).split())[:160].replace(str(path), path.name).rstrip(".")
            or type(error).__name__
        )
        raise ImageError(f"{path.name} cannot be decoded ({reason}); {EXPECTED}.") from error
