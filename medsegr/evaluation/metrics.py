"""Metrics as pure functions of plain arrays: overlaps, the no-target rules of GRES (Liu et al. 2023), calibration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def dice(prediction: Mask, truth: Mask) -> float:
    """2|A∩B| / (|A|+|B|); two empty masks agree: 1."""
    total = int(prediction.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2.0 * int((prediction & truth).sum()) / total


def iou(prediction: Mask, truth: Mask) -> float:
    """|A∩B| / |A∪B|; two empty masks agree: 1."""
    union = int((prediction | truth).sum())
    return 1.0 if union == 0 else int((prediction & truth).sum()) / union


def mean_within_then_over(
    rows: Iterable[tuple[str, str, float]], min_cases: int = 3
) -> tuple[float, dict[str, float]]:
    """Mean over cases of a target, over the targets of a set with at least `min_cases` cases, then over sets.

    rows: (set, target, value). Returns the mean over sets and the mean of each set.
    """
    cases: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, target, value in rows:
        cases[name][target].append(value)
    sets: dict[str, float] = {}
    for name, targets in cases.items():
        means = [float(np.mean(v)) for v in targets.values() if len(v) >= min_cases]
        if means:
            sets[name] = float(np.mean(means))
    return (float(np.mean(list(sets.values()))) if sets else float("nan")), sets


def no_target_accuracy(predicted_empty: Sequence[bool]) -> float:
    """N-acc: share of questions about absent structures that were answered without a mask (Liu et al. 2023, GRES)."""
    return float(np.mean(predicted_empty)) if len(predicted_empty) else float("nan")


def target_accuracy(predicted_empty: Sequence[bool]) -> float:
    """T-acc: share of questions about present structures that were answered with a mask."""
    return 1.0 - float(np.mean(predicted_empty)) if len(predicted_empty) else float("nan")


def chose_target(prediction: Mask, asked: str, truths: Mapping[str, Mask]) -> bool:
    """Whether the prediction overlaps the asked target more (in IoU) than any other of the disjoint `truths`."""
    scores = {name: iou(prediction, truth) if prediction.any() else 0.0 for name, truth in truths.items()}
    return scores[asked] > 0 and all(scores[asked] > score for name, score in scores.items() if name != asked)


def expected_calibration_error(confidence: Sequence[float], correct: Sequence[bool], bins: int = 10) -> float:
    """ECE with equal-width bins (Guo et al. 2017): mean gap between confidence and accuracy, weighted by bin size."""
    c, y = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if not len(c):
        return float("nan")
    which = np.minimum((c * bins).astype(int), bins - 1)
    return float(
        sum(
            abs(c[which == b].mean() - y[which == b].mean()) * (which == b).sum()
            for b in range(bins)
            if (which == b).any()
        )
        / len(c)
    )
