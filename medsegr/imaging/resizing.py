"""Resizing to the model's square; aspect is not kept (as MedSAM does), so a mask goes back by one plain resize."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize_rgb(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[H, W, 3] -> [S, S, 3], antialiased bilinear."""
    if rgb.shape[:2] == (side, side):
        return np.array(rgb)  # a copy of its own: torch wants to be able to write
    return np.array(Image.fromarray(rgb).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0))


def resize_labels(labels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[H, W] -> [S, S] by nearest neighbour."""
    return np.array(Image.fromarray(labels).resize((side, side), Image.Resampling.NEAREST))
