"""From stored intensities to the 8-bit RGB that models, overlays and pages look at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegr.errors import ImageError
from medsegr.imaging.types import Volume

SOFT_TISSUE_HU = (-160.0, 240.0)
BRAIN_HU = (0.0, 80.0)
BRAIN_PARTS = frozenset({"HEAD", "BRAIN"})
PERCENTILES = (0.5, 99.5)
MAX_SAMPLES = 2_000_000
"""Percentiles of larger arrays are taken over an even subsample, to stay quick."""


def to_rgb(
    pixels: NDArray[Any],
    modality: str | None,
    body_part: str | None = None,
    intensity_range: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Render `pixels` [H, W], [H, W, 3] or [H, W, 4] as uint8 [H, W, 3].

    8-bit pixels stay as they are (grey is replicated, alpha dropped) unless `intensity_range` is given.
    CT in HU gets the soft-tissue window -160..240, or 0..80 where `body_part` is HEAD or BRAIN. Everything
    else is scaled between its 0.5 and 99.5 percentiles; so are unsigned CT values, which cannot be HU.
    """
    pixels = np.asarray(pixels)
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))) or pixels.size == 0:
        raise ImageError(
            f"Pixels have shape {pixels.shape}; [H, W] or [H, W, 3] with at least one pixel is expected."
        )
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype != np.uint8 or intensity_range is not None:
        low, high = intensity_range or _range_of(pixels, modality, body_part)
        pixels = scale(pixels, low, high)
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2))


def scale(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map low..high to 0..255 (rounded) and clip; an empty range gives all zeros."""
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    unit = (np.asarray(values, np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    return np.rint(np.clip(unit, 0.0, 255.0)).astype(np.uint8)


def volume_intensity_range(volume: Volume) -> tuple[float, float]:
    """(low, high) shared by all slices of `volume`: the window for CT, 0..255 for colour, percentiles for the
    rest.
    """
    if volume.voxels.ndim == 4:
        return 0.0, 255.0
    return _range_of(volume.voxels, volume.modality, volume.body_part)


def ct_window(body_part: str | None) -> tuple[float, float]:
    """The HU window (low, high) used for a CT of `body_part`."""
    return BRAIN_HU if (body_part or "").strip().upper() in BRAIN_PARTS else SOFT_TISSUE_HU


def _range_of(values: NDArray[Any], modality: str | None, body_part: str | None) -> tuple[float, float]:
    if (modality or "").upper() == "CT" and values.dtype.kind in "if":
        return ct_window(body_part)
    flat = values.reshape(-1)
    sample = flat[:: max(1, -(-flat.size // MAX_SAMPLES))].astype(np.float64)
    if not np.isfinite(sample).all():
        raise ImageError("The image holds values that are not finite numbers; finite values are expected.")
    low, high = np.percentile(sample, PERCENTILES)
    if not high > low:  # one bright spot on a flat ground
        low, high = sample.min(), sample.max()
    return float(low), float(high)
