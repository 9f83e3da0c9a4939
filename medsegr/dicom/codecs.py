"""Decode one frame of a DICOM file: with pydicom and Pillow where they can, with GDCM where they cannot."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixel_data_handlers.util import convert_color_space
from pydicom.uid import UID, JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid

from medsegr.errors import ImageError

PALETTES = tuple(
    f"{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for part in ("Descriptor", "Data")
)
DESCRIPTION = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    *PALETTES,
)
YBR = frozenset({"YBR_FULL", "YBR_FULL_422"})


def one_frame(header: Dataset, pixels: bytes) -> Dataset:
    """A data set of one frame with what decoding asks for, and nothing (such as a rescale slope) that would change it."""
    one = Dataset()
    for key in DESCRIPTION:
        if key in header:
            one[key] = header[key]
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    one.is_little_endian, one.is_implicit_VR = header.is_little_endian, header.is_implicit_VR
    one.PixelData = pixels
    return one


def as_rgb(pixels: NDArray[Any], header: Dataset) -> NDArray[Any]:
    """Pixels [H, W, 3] that are luminance and chroma as RGB, others as they are."""
    photometric = str(header.get("PhotometricInterpretation", "")).upper()
    if photometric in YBR and pixels.ndim == 3:
        return np.asarray(convert_color_space(pixels, photometric, "RGB"))
    return pixels


def decode(frame: bytes, header: Dataset) -> NDArray[Any]:
    """One compressed frame as [H, W] or [H, W, 3], colour as RGB or palette indices."""
    one = one_frame(header, encapsulate([frame]))
    photometric = str(header.get("PhotometricInterpretation", "")).upper()
    try:
        marked = photometric == "RGB" and one.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        pixels = _marked_jpeg(frame) if marked and _says_its_colours(frame) else one.pixel_array
        pixels = as_rgb(pixels, header)
    # Broad on purpose: pydicom and Pillow raise almost anything where they lack a codec or meet damage; GDCM is asked then.
    except Exception:  # noqa: BLE001
        pixels = _decode_with_gdcm(one)
    expected = (int(header.Rows), int(header.Columns))
    if pixels.shape[:2] != expected:
        raise ImageError(
            f"A frame decodes to shape {pixels.shape[:2]}; {expected} is expected from its header."
        )
    return pixels


def _says_its_colours(frame: bytes) -> bool:
    """Whether a JPEG that the header calls RGB says itself how its colours are coded, or is YCbCr by its coarser chroma."""
    with Image.open(io.BytesIO(frame)) as image:
        sampling = {layer[1:3] for layer in getattr(image, "layer", ())}
        return len(sampling) > 1 or "adobe_transform" in image.info or "jfif" in image.info


def _marked_jpeg(frame: bytes) -> NDArray[Any]:
    with Image.open(io.BytesIO(frame)) as image:
        return np.asarray(image.convert("RGB"))


def _decode_with_gdcm(one: Dataset) -> NDArray[Any]:
    syntax = UID(one.file_meta.TransferSyntaxUID)
    one.SOPClassUID, one.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.is_little_endian, one.is_implicit_VR = True, False
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
    with tempfile.TemporaryDirectory(prefix="medsegr-") as folder:
        path = Path(folder) / "frame.dcm"
        try:
            one.save_as(path, write_like_original=False)
            image: Any = SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO")
        # Broad on purpose: whatever is wrong with a damaged frame, the user gets this sentence.
        except Exception as error:  # noqa: BLE001
            raise ImageError(f"A frame compressed as {syntax.name} cannot be decoded here.") from error
        pixels = SimpleITK.GetArrayFromImage(image)
    return np.asarray(pixels[0] if image.GetDimension() == 3 else pixels)
