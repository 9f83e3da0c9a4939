"""Whether a confidence means what it says: the expected calibration error and the bins behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bin:
    """Cases with a confidence in [low, high) (the last bin is closed): their number, mean confidence and share of right
    ones; both are NaN in an empty bin."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(confidence: Sequence[float], correct: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Bins of equal width over [0, 1]."""
    c, y = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    which = np.minimum((c * bins).astype(int), bins - 1)
    found = []
    for b in range(bins):
        inside = which == b
        n = int(inside.sum())
        means = (float(c[inside].mean()), float(y[inside].mean())) if n else (float("nan"), float("nan"))
        found.append(Bin(b / bins, (b + 1) / bins, n, *means))
    return found


def expected_calibration_error(confidence: Sequence[float], correct: Sequence[bool], bins: int = 10) -> float:
    """ECE with equal-width bins (Guo et al. 2017): mean gap between confidence and accuracy, weighted by bin size; NaN of
    nothing."""
    total = len(confidence)
    if not total:
        return float("nan")
    filled = [b for b in reliability(confidence, correct, bins) if b.n]
    return sum(b.n * abs(b.confidence - b.accuracy) for b in filled) / total
