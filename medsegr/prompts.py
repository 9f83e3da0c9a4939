"""What a user points at besides asking: clicks and a box, in pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medsegr.errors import QuestionError


def clicks_in_square(
    points: Sequence[Sequence[float]] | None, size: tuple[int, int], side: int, device: str
) -> tuple[Tensor, Tensor] | None:
    """Clicks in image pixels (row, column, label) -> (x, y) in the model's square and labels."""
    if points is None or not len(points):
        return None
    try:
        array = np.asarray(points, dtype=np.float32)
    except (TypeError, ValueError):
        array = np.zeros(0, np.float32)
    if array.ndim != 2 or array.shape[1] != 3 or not np.isin(array[:, 2], (0, 1)).all():
        raise QuestionError(
            "points must be a list of [row, column, label] with label 1 (inside) or 0 (outside)."
        )
    if not ((array[:, :2] >= 0) & (array[:, :2] < size)).all():
        raise QuestionError(f"points must lie inside the image of {size[0]} x {size[1]} pixels.")
    scaled = array[:, :2] * np.array([side / size[0], side / size[1]], dtype=np.float32)
    xy, labels = torch.from_numpy(scaled[:, ::-1].copy()), torch.from_numpy(array[:, 2].copy())
    return xy.to(device), labels.to(device)


def pixels_inside(box: Sequence[float], size: tuple[int, int]) -> NDArray[np.bool_]:
    """[H, W] bool: the pixels that the box [row0, column0, row1, column1] touches."""
    if len(box) != 4 or not (0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]):
        raise QuestionError(
            f"box must be [row0, column0, row1, column1] inside the image of {size[0]} x {size[1]} pixels."
        )
    inside = np.zeros(size, dtype=bool)
    inside[int(box[0]) : int(np.ceil(box[2])), int(box[1]) : int(np.ceil(box[3]))] = True
    return inside
