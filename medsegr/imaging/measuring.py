"""Sizes of a mask from the image's geometry: the only source of numbers in a reply."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegr.errors import ImageError
from medsegr.imaging.types import Picture, Volume


def measure(mask: NDArray[Any], reference: Picture | Volume) -> dict[str, Any]:
    """Size of `mask` (bool, [H, W] or [X, Y, Z], on the grid of `reference`).

    A picture gives `area_mm2`, or `area_px` where its spacing is unknown. A volume gives `volume_ml` and
    `slices`: the first and the last slice index (from 0, along `slice_axis`) that the mask touches, or an
    empty list for an empty mask.
    """
    grid = reference.shape if isinstance(reference, Volume) else reference.pixels.shape[:2]
    mask = np.asarray(mask).astype(bool)
    if mask.shape != grid:
        raise ImageError(f"A mask of shape {mask.shape} is not on the image's grid {tuple(grid)}.")
    count = int(np.count_nonzero(mask))
    if isinstance(reference, Volume):
        others = tuple(axis for axis in range(3) if axis != reference.slice_axis)
        touched = np.flatnonzero(mask.any(axis=others))
        slices = [int(touched[0]), int(touched[-1])] if count else []
        return {"volume_ml": count * reference.voxel_ml, "slices": slices}
    if reference.spacing_mm is None:
        return {"area_px": count}
    row, column = reference.spacing_mm
    return {"area_mm2": count * row * column}


def size_in_words(mask: NDArray[Any], reference: Picture | Volume) -> str:
    """The size of `measure` for people, such as "1,523 mm²", "12.3 ml" or "845 pixels"."""
    sizes = measure(mask, reference)
    if "volume_ml" in sizes:
        return f"{sizes['volume_ml']:.1f} ml"
    if "area_px" in sizes:
        return f"{sizes['area_px']:,} pixels"
    return f"{sizes['area_mm2']:,.0f} mm\N{SUPERSCRIPT TWO}"
