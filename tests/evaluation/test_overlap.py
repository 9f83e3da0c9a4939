"""Overlaps, no-target rules and averages: worked out by hand, and against scikit-learn and MONAI."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou
from sklearn.metrics import f1_score, jaccard_score, recall_score

from medsegr.evaluation import metrics as m

A = np.array([[1, 1, 0, 0]], dtype=bool)
B = np.array([[0, 1, 1, 0]], dtype=bool)
NONE = np.zeros((1, 4), dtype=bool)
RANDOM = np.random.default_rng(3).random((20, 2, 13, 17)) > 0.6


@pytest.mark.parametrize(
    ("a", "b", "dice", "iou"), [(A, A, 1, 1), (A, B, 0.5, 1 / 3), (A, NONE, 0, 0), (NONE, NONE, 1, 1)]
)
def test_overlaps(a: np.ndarray, b: np.ndarray, dice: float, iou: float) -> None:
    assert m.dice(a, b) == pytest.approx(dice)
    assert m.iou(a, b) == pytest.approx(iou)


def test_overlaps_agree_with_scikit_learn_and_monai() -> None:
    for a, b in RANDOM:
        assert m.dice(a, b) == pytest.approx(f1_score(b.ravel(), a.ravel()), abs=1e-6)
        assert m.iou(a, b) == pytest.approx(jaccard_score(b.ravel(), a.ravel()), abs=1e-6)
        prediction, truth = (torch.from_numpy(x)[None, None].float() for x in (a, b))
        assert m.dice(a, b) == pytest.approx(float(compute_dice(prediction, truth)), abs=1e-6)
        assert m.iou(a, b) == pytest.approx(float(compute_iou(prediction, truth)), abs=1e-6)


def test_giou_and_ciou_with_the_no_target_rules() -> None:
    """A right mask, half a mask, a right silence, and 5 pixels drawn in vain."""
    five = np.ones((1, 5), dtype=bool)
    pairs = [(A, A), (A, B), (NONE, NONE), (five, np.zeros((1, 5), dtype=bool))]
    assert m.giou([m.iou(p, t) for p, t in pairs]) == pytest.approx((1 + 1 / 3 + 1 + 0) / 4)
    counts = [m.intersection_and_union(p, t) for p, t in pairs]
    assert counts == [(2, 2), (1, 3), (0, 0), (0, 5)]
    assert m.ciou(*zip(*counts, strict=True)) == pytest.approx(3 / 10)
    assert math.isnan(m.ciou([0], [0])) and math.isnan(m.giou([]))


def test_precision_at_a_threshold_includes_it() -> None:
    assert m.precision_at([0.7, 0.69, 1.0, 0.0], 0.7) == 0.5


def test_no_target_accuracies_are_recalls() -> None:
    empty = [True, True, False, True]
    assert m.no_target_accuracy(empty) == 0.75 == recall_score([1] * 4, empty)
    assert m.target_accuracy([True, False, False, False]) == 0.75 == recall_score([1] * 4, [0, 1, 1, 1])
    assert math.isnan(m.no_target_accuracy([])) and math.isnan(m.target_accuracy([]))


def test_target_choice_needs_most_overlap_with_the_asked() -> None:
    truths = {"a": A, "b": np.array([[0, 0, 1, 1]], dtype=bool)}
    assert m.chose_target(A, "a", truths)
    assert not m.chose_target(A, "b", truths)
    assert not m.chose_target(np.array([[0, 1, 1, 0]], dtype=bool), "a", truths), "a tie is no choice"
    assert not m.chose_target(NONE, "a", truths)


def test_mean_is_taken_within_targets_then_sets() -> None:
    rows = [("s", "a", 1.0)] * 3 + [("s", "b", 0.0)] * 6 + [("t", "c", 0.8)] * 3 + [("t", "rare", 0.0)]
    mean, sets = m.mean_within_then_over(rows)
    assert sets == {"s": pytest.approx(0.5), "t": pytest.approx(0.8)}
    assert mean == pytest.approx(0.65)
    assert math.isnan(m.mean_within_then_over([("s", "a", 1.0)])[0])


def test_mean_over_pairs() -> None:
    """A and B share half, A and A all, so three wordings agree by (1 + 0.5 + 0.5) / 3."""
    assert m.mean_pairwise([A, A, B], m.dice) == pytest.approx(2 / 3)
    assert math.isnan(m.mean_pairwise([A], m.dice))
