"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medsegr.evaluation import metrics as m

A = np.array([[1, 1, 0, 0]], dtype=bool)
B = np.array([[0, 1, 1, 0]], dtype=bool)
NONE = np.zeros((1, 4), dtype=bool)


@pytest.mark.parametrize(
    ("a", "b", "dice", "iou"), [(A, A, 1, 1), (A, B, 0.5, 1 / 3), (A, NONE, 0, 0), (NONE, NONE, 1, 1)]
)
def test_overlaps(a: np.ndarray, b: np.ndarray, dice: float, iou: float) -> None:
    assert m.dice(a, b) == pytest.approx(dice)
    assert m.iou(a, b) == pytest.approx(iou)


def test_mean_is_taken_within_targets_then_sets() -> None:
    rows = [("s", "a", 1.0)] * 3 + [("s", "b", 0.0)] * 6 + [("t", "c", 0.8)] * 3 + [("t", "rare", 0.0)]
    mean, sets = m.mean_within_then_over(rows)
    assert sets == {"s": pytest.approx(0.5), "t": pytest.approx(0.8)}
    assert mean == pytest.approx(0.65)


def test_mean_of_nothing_is_nan() -> None:
    assert math.isnan(m.mean_within_then_over([("s", "a", 1.0)])[0])


def test_no_target_accuracies() -> None:
    assert m.no_target_accuracy([True, True, False, True]) == 0.75
    assert m.target_accuracy([True, False, False, False]) == 0.75


def test_target_choice_needs_most_overlap_with_the_asked() -> None:
    truths = {"a": A, "b": np.array([[0, 0, 1, 1]], dtype=bool)}
    assert m.chose_target(A, "a", truths)
    assert not m.chose_target(A, "b", truths)
    assert not m.chose_target(np.array([[0, 1, 1, 0]], dtype=bool), "a", truths), "a tie is no choice"
    assert not m.chose_target(NONE, "a", truths)


def test_calibration_error_by_hand() -> None:
    # bin 0.9: confidence .95, accuracy .5 -> gap .45 (2 of 3); bin 0.1: confidence .15, accuracy 0 -> gap .15 (1 of 3)
    assert m.expected_calibration_error([0.95, 0.95, 0.15], [True, False, False]) == pytest.approx(
        (2 * 0.45 + 0.15) / 3
    )
    assert m.expected_calibration_error([1.0], [True]) == 0.0
