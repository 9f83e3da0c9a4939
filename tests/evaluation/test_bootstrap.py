"""Intervals over patients and calibration: by hand, against a plain loop, scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.calibration import calibration_curve

from medsegr.evaluation import metrics as m
from medsegr.evaluation.bootstrap import DRAWS, resampled_counts

RNG = np.random.default_rng(5)
WHO = [f"p{i}" for i in RNG.integers(0, 12, 80)]
TOP, BOTTOM = RNG.random(80), RNG.random(80) + 0.5


def test_every_draw_takes_as_many_patients_as_there_are() -> None:
    counts = resampled_counts(7, draws=50, seed=1)
    assert counts.shape == (50, 7) and (counts.sum(axis=1) == 7).all()
    assert np.array_equal(counts, resampled_counts(7, draws=50, seed=1))
    assert not np.array_equal(counts, resampled_counts(7, draws=50, seed=2))


def test_interval_agrees_with_a_loop_over_draws() -> None:
    """The same draws, but patients' cases are put together one by one."""
    names = list(dict.fromkeys(WHO))
    chosen = np.random.default_rng(0).integers(0, len(names), (DRAWS, len(names)))
    values = []
    for draw in chosen:
        rows = [i for p in draw for i, who in enumerate(WHO) if who == names[p]]
        values.append(TOP[rows].sum() / BOTTOM[rows].sum())
    found = m.share(TOP, BOTTOM, WHO)
    assert found.value == pytest.approx(TOP.sum() / BOTTOM.sum())
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-9)
    assert (found.n, found.patients) == (80, 12)


def test_interval_of_a_mean_is_near_scipys() -> None:
    values = RNG.normal(3.0, 1.0, 200)
    found = m.share(values, np.ones(200), list(range(200)), draws=4000)
    theirs = scipy_bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)


def test_patients_and_not_cases_are_drawn() -> None:
    """Six patients whose hundred cases are all alike know as much as six cases."""
    few = m.share([1, 0, 1, 1, 0, 1], [1] * 6, list("abcdef"))
    many = m.share(np.repeat([1, 0, 1, 1, 0, 1], 100), np.ones(600), np.repeat(list("abcdef"), 100).tolist())
    assert (few.value, few.low, few.high) == pytest.approx((many.value, many.low, many.high))
    assert few.high - few.low > 0.5


def test_no_interval_for_few_patients_and_none_of_nothing() -> None:
    few = m.share([1.0, 0.0, 1.0, 0.0], [1.0] * 4, list("abcd"))
    assert few.value == 0.5 and math.isnan(few.low) and few.patients == 4
    assert math.isnan(m.share([], [], []).value)
    assert m.share([1.0] * 5, [1.0] * 5, list("abcde")).low == 1.0


def test_macro_interval_agrees_with_a_loop_over_draws() -> None:
    rows = [
        (("s", "t")[i % 2], ("a", "b", "c")[i % 3], f"p{i % 16}", float(v))
        for i, v in enumerate(RNG.random(96))
    ]
    low, high = m.macro_interval(rows, draws=200)
    values = []
    drawn = {}
    for number, name in enumerate(("s", "t")):
        patients = list(dict.fromkeys(p for s, _, p, _ in rows if s == name))
        drawn[name] = patients, np.random.default_rng(number).integers(0, len(patients), (200, len(patients)))
    for draw in range(200):
        taken = []
        for name, (patients, chosen) in drawn.items():
            for p in chosen[draw]:
                taken += [(s, t, v) for s, t, who, v in rows if s == name and who == patients[p]]
        values.append(m.mean_within_then_over(taken, min_cases=1)[0])
    assert (low, high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-9)


def test_macro_interval_leaves_out_rare_targets_like_the_mean() -> None:
    rows = [("s", "a", f"p{n}", 0.5) for n in range(6)] + [("s", "rare", "p0", 0.0)]
    assert m.macro_interval(rows) == (0.5, 0.5)
    assert math.isnan(m.macro_interval([])[0])


def test_calibration_error_by_hand() -> None:
    # bin 0.9: confidence .95, accuracy .5 -> gap .45 (2 of 3); bin 0.1: confidence .15, accuracy 0 -> gap .15 (1 of 3)
    assert m.expected_calibration_error([0.95, 0.95, 0.15], [True, False, False]) == pytest.approx(
        (2 * 0.45 + 0.15) / 3
    )
    assert m.expected_calibration_error([1.0], [True]) == 0.0
    assert math.isnan(m.expected_calibration_error([], []))


def test_calibration_agrees_with_scikit_learn() -> None:
    confidence = RNG.random(500)
    right = RNG.random(500) < confidence**2
    accuracy, mean = calibration_curve(right, confidence, n_bins=10, strategy="uniform")
    bins = [b for b in m.reliability(confidence, right) if b.n]
    assert [b.accuracy for b in bins] == pytest.approx(accuracy.tolist(), abs=1e-6)
    assert [b.confidence for b in bins] == pytest.approx(mean.tolist(), abs=1e-6)
    weights = np.histogram(confidence, np.linspace(0, 1, 11))[0] / 500
    assert m.expected_calibration_error(confidence, right) == pytest.approx(
        float((weights * np.abs(accuracy - mean)).sum()), abs=1e-6
    )
