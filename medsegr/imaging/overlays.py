"""Pictures of masks for pages, reports and eyes: a light fill and a full outline per finding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medsegr.errors import ImageError

COLOURS: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (148, 103, 189), (127, 219, 75), (255, 140, 140),
)  # fmt: skip
"""Okabe and Ito's colours for every colour vision, and three more; finding n takes number n, cyclically."""

FILL = 0.25


def overlay(rgb: NDArray[np.uint8], masks: Sequence[tuple[str, NDArray[Any]]]) -> NDArray[np.uint8]:
    """Draw `masks` (name, [H, W] bool) over `rgb` [H, W, 3] uint8, later ones above; returns a copy."""
    drawn = np.asarray(rgb).astype(np.float32)
    if drawn.ndim != 3 or drawn.shape[2] != 3:
        raise ImageError(f"An overlay needs an RGB picture [H, W, 3]; found shape {drawn.shape}.")
    for n, (name, values) in enumerate(masks):
        mask = np.asarray(values).astype(bool)
        if mask.shape != drawn.shape[:2]:
            raise ImageError(f"The mask of {name} has shape {mask.shape}; the picture is {drawn.shape[:2]}.")
        colour = np.asarray(COLOURS[n % len(COLOURS)], np.float32)
        drawn[mask] += FILL * (colour - drawn[mask])
        drawn[outline(mask)] = colour
    return np.rint(drawn).astype(np.uint8)


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of `mask` [H, W] that have a 4-neighbour outside it (the picture's rim counts as outside)."""
    inner = ndimage.binary_erosion(mask, border_value=0)
    return np.asarray(mask & ~inner, dtype=np.bool_)
