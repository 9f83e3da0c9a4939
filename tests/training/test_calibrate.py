"""The confidence curve and the choice of the patients it is fitted on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from medsegr.training.calibrate import fit_curve, kept_for_calibration
from tests.training.test_batches import _case, _labels


def test_a_known_curve_is_found_again() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, 20000)
    good = rng.random(20000) < 1 / (1 + np.exp(-(1.5 * scores - 0.5)))
    slope, offset = fit_curve(scores.tolist(), good.tolist())
    assert slope == pytest.approx(1.5, abs=0.1) and offset == pytest.approx(-0.5, abs=0.1)


def test_one_outcome_gives_the_identity() -> None:
    assert fit_curve([0.1, 0.2], [True, True]) == (1.0, 0.0)


def test_a_patient_is_kept_out_as_a_whole() -> None:
    case = _case("a", 1, _labels(1, slice(0, 20)))
    cases = [replace(case, patient_id=f"p{i}", image=f"{k}.png") for i in range(400) for k in range(2)]
    kept = {c.patient_id for c in cases if kept_for_calibration(c, 0.1)}
    trained = {c.patient_id for c in cases if not kept_for_calibration(c, 0.1)}
    assert not kept & trained
    assert math.isclose(len(kept) / 400, 0.1, abs_tol=0.05)
