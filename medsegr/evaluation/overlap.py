"""How far two masks cover each other, for one question and over many. Masks are bool arrays of one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def intersection_and_union(prediction: Mask, truth: Mask) -> tuple[int, int]:
    """|A∩B| and |A∪B| in pixels."""
    both = int(np.count_nonzero(prediction & truth))
    return both, int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth)) - both


def dice(prediction: Mask, truth: Mask) -> float:
    """2|A∩B| / (|A|+|B|); two empty masks agree: 1."""
    both, union = intersection_and_union(prediction, truth)
    return 1.0 if union == 0 else 2.0 * both / (both + union)


def iou(prediction: Mask, truth: Mask) -> float:
    """|A∩B| / |A∪B|; two empty masks agree: 1."""
    both, union = intersection_and_union(prediction, truth)
    return 1.0 if union == 0 else both / union


def giou(ious: Sequence[float]) -> float:
    """Mean of the questions' IoU (LISA, Lai et al. 2024). A question without a target counts 1 if nothing was drawn, else 0
    (GRES, Liu et al. 2023); `iou` of empty masks gives just that. NaN of nothing."""
    return float(np.mean(ious)) if len(ious) else float("nan")


def ciou(intersections: Sequence[int], unions: Sequence[int]) -> float:
    """Sum of intersections over sum of unions (LISA). A right "not present" adds nothing to either; a mask drawn in vain adds its
    area to the union (GRES). NaN where nothing was asked for and nothing drawn."""
    total = sum(unions)
    return sum(intersections) / total if total else float("nan")


def precision_at(ious: Sequence[float], threshold: float) -> float:
    """Share of questions with a target whose IoU reaches `threshold` (Pr@0.7 of GRES); NaN of nothing."""
    return float(np.mean(np.asarray(ious) >= threshold)) if len(ious) else float("nan")


def chose_target(prediction: Mask, asked: str, truths: Mapping[str, Mask]) -> bool:
    """Whether the prediction overlaps the asked target more (in IoU) than any other of the disjoint `truths`."""
    return chose_best(
        {name: iou(prediction, truth) if prediction.any() else 0.0 for name, truth in truths.items()}, asked
    )


def chose_best(scores: Mapping[str, float], asked: str) -> bool:
    """Whether `asked` has the one highest score, above 0; a tie is no choice."""
    return scores[asked] > 0 and all(scores[asked] > score for name, score in scores.items() if name != asked)
