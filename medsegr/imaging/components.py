"""Cleaning a predicted 3-D mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def remove_specks(mask: NDArray[np.bool_], share: float = 0.05) -> NDArray[np.bool_]:
    """[X, Y, Z] bool without the connected pieces smaller than `share` of the largest one."""
    pieces, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= share * sizes.max())[pieces])
