"""Distances between outlines: normalised surface Dice and the 95th percentile Hausdorff distance, both through MONAI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monai.metrics.utils import get_mask_edges, get_surface_distance

from medsegr.evaluation.overlap import Mask

TOLERANCE = 2.0
"""An outline element counts as right within this many mm, or pixels where the spacing is unknown."""


@dataclass(frozen=True)
class SurfaceScores:
    """`nsd` in [0, 1]; `hd95` in `unit`, "mm" or "px"."""

    nsd: float
    hd95: float
    unit: str


def surface_scores(
    prediction: Mask,
    truth: Mask,
    spacing_mm: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
    percentile: float = 95.0,
) -> SurfaceScores:
    """NSD at `tolerance` and the symmetric Hausdorff distance at `percentile` of two masks [H, W] or [X, Y, Z].

    spacing_mm: one length per axis; None gives pixels. The edge of a mask is every pixel of it with a neighbour outside (the
    image's rim counts as outside). Two empty masks: NSD 1, distance 0. One empty: NSD 0, distance = the image's diagonal.
    """
    unit = "px" if spacing_mm is None else "mm"
    step = [1.0] * truth.ndim if spacing_mm is None else [float(s) for s in spacing_mm]
    if not prediction.any() or not truth.any():
        alike = not prediction.any() and not truth.any()
        diagonal = math.hypot(*(n * s for n, s in zip(truth.shape, step, strict=True)))
        return SurfaceScores(1.0 if alike else 0.0, 0.0 if alike else diagonal, unit)
    box = _bounding_box(prediction | truth)
    drawn, true = get_mask_edges(prediction[box], truth[box], crop=False)
    both = [
        np.asarray(get_surface_distance(one, other, spacing=step), dtype=float)
        for one, other in ((drawn, true), (true, drawn))
    ]
    within = sum(int(np.count_nonzero(d <= tolerance)) for d in both)
    far = max(float(np.percentile(d, percentile)) for d in both)
    return SurfaceScores(within / sum(len(d) for d in both), far, unit)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty; what lies outside has no edge."""
    box = []
    for axis in range(mask.ndim):
        touched = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(int(touched[0]), int(touched[-1]) + 1))
    return tuple(box)
