"""Pixel values of one DICOM data set: HU for CT, display values for X-ray and 8-bit images, RGB for colour.

Called by `dicom_reading`; reads no geometry and never touches the header it is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixel_data_handlers.util import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    convert_color_space,
)

from medsegr.errors import ImageError
from medsegr.imaging.windowing import scale

XRAY = frozenset({"CR", "DX", "DR", "MG", "PX", "IO", "RG", "XA", "RF"})
PYDICOM_CONVERTS_COLOUR = int(pydicom.__version__.split(".")[0]) >= 3


def pixel_values(dataset: Dataset, path: Path) -> NDArray[Any]:
    """Values of `dataset` as [H, W], [F, H, W], [H, W, 3] or [F, H, W, 3].

    Grey: float32 after the modality transform (HU for CT, MONOCHROME1 turned so that larger is brighter), or
    uint8 display values for X-ray images that carry a VOI window and for plain 8-bit images. Colour: uint8
    RGB.
    """
    stored, rescaled = _stored(dataset, path)
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).upper()
    if photometric == "PALETTE COLOR":
        return _eight_bit(apply_color_lut(stored, dataset)) if not rescaled else _eight_bit(stored)
    if int(dataset.get("SamplesPerPixel", 1)) >= 3:
        converted = rescaled or PYDICOM_CONVERTS_COLOUR or photometric not in {"YBR_FULL", "YBR_FULL_422"}
        return _eight_bit(stored if converted else convert_color_space(stored, photometric, "RGB"))
    return _grey(stored, rescaled, photometric == "MONOCHROME1", dataset)


def _stored(dataset: Dataset, path: Path) -> tuple[NDArray[Any], bool]:
    """Decoded pixel data, and whether the decoder already applied rescaling and colour conversion (GDCM
    does).
    """
    try:
        return np.asarray(dataset.pixel_array), False
    except (
        NotImplementedError,
        RuntimeError,
    ) as error:  # pydicom has no decoder for this transfer syntax here
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        if syntax is None or not syntax.is_compressed:
            raise
        try:
            image: Any = SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO")
        except RuntimeError:
            raise ImageError(
                f"{path.name} is compressed as {syntax.name}, which cannot be decoded here."
            ) from error
        array = SimpleITK.GetArrayFromImage(image)
        single = int(dataset.get("NumberOfFrames", 1) or 1) == 1
        return (array[0] if single and image.GetDimension() == 3 else array), True


def _grey(stored: NDArray[Any], rescaled: bool, inverted: bool, dataset: Dataset) -> NDArray[Any]:
    values = stored if rescaled else apply_modality_lut(stored, dataset)
    slope, intercept = _shared_rescale(dataset)
    if not rescaled and (slope, intercept) != (1.0, 0.0):
        values = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if str(dataset.get("Modality", "")).upper() in XRAY:
        shown = _voi(values, dataset)
        if shown is not None:
            return np.uint8(255) - shown if inverted else shown
    plain = not any(key in dataset for key in ("RescaleSlope", "ModalityLUTSequence")) and (
        slope,
        intercept,
    ) == (1.0, 0.0)
    if plain and stored.dtype == np.uint8 and int(dataset.get("BitsStored", 8)) == 8:
        return np.uint8(255) - stored if inverted else stored
    values = np.asarray(values, np.float32)
    return values.max() + values.min() - values if inverted else values


def _shared_rescale(dataset: Dataset) -> tuple[float, float]:
    """Slope and intercept that an enhanced multi-frame object keeps in its functional groups; (1, 0) where
    there are none.
    """
    for key in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (dataset.get(key) or [])[:1]:
            for item in group.get("PixelValueTransformationSequence") or []:
                return float(item.get("RescaleSlope", 1.0)), float(item.get("RescaleIntercept", 0.0))
    return 1.0, 0.0


def _voi(values: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8] | None:
    """The first VOI LUT or window as 0..255 (PS3.3 C.11.2), or None where none shows anything."""
    try:
        if dataset.get("VOILUTSequence") and np.issubdtype(values.dtype, np.integer):
            bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
            return scale(apply_voi(values, dataset, 0), 0.0, float(2**bits - 1))
        centre, width = (_first(dataset.get(key)) for key in ("WindowCenter", "WindowWidth"))
    except (AttributeError, IndexError, TypeError, ValueError):
        return None  # a damaged window must not cost the user the image
    if centre is None or width is None or width < 1:
        return None
    shown = window(values, centre, width, str(dataset.get("VOILUTFunction", "LINEAR")))
    return shown if shown.min() < shown.max() else None


def window(values: NDArray[Any], centre: float, width: float, function: str = "LINEAR") -> NDArray[np.uint8]:
    """DICOM's window function (PS3.3 C.11.2.1.2 and C.11.2.1.3) onto 0..255."""
    function = function.upper()
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (np.asarray(values, np.float64) - centre) / width, -700.0, 700.0)
        return np.asarray(np.rint(255.0 / (1.0 + np.exp(exponent))), np.uint8)
    if function == "LINEAR_EXACT":
        return scale(values, centre - width / 2, centre + width / 2)
    if width <= 1:
        return np.asarray(255 * (np.asarray(values) > centre - 0.5), np.uint8)
    return scale(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__iter__") and not isinstance(value, str) else value)


def _eight_bit(colour: NDArray[Any]) -> NDArray[np.uint8]:
    colour = colour[..., :3]
    return np.asarray(colour if colour.dtype == np.uint8 else colour >> 8, np.uint8)
