"""Confidence: a logistic curve from the decoder's quality score to P(Dice >= 0.7), fitted on patients kept out of training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from medsegr.evaluation.metrics import dice
from medsegr.predictor import Predictor
from medsegr.training.images import Case

GOOD_DICE = 0.7


def kept_for_calibration(case: Case, share: float) -> bool:
    """Whether this patient is in the calibration share; depends on nothing but set and patient."""
    digest = hashlib.sha256(f"{case.dataset}/{case.patient_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < share


def fit_curve(scores: Sequence[float], good: Sequence[bool]) -> tuple[float, float]:
    """Slope and offset of P(good) = sigmoid(slope * score + offset); identity where only one outcome was seen."""
    if len(set(good)) < 2:
        return 1.0, 0.0
    fitted = LogisticRegression(C=1e3).fit(np.asarray(scores).reshape(-1, 1), np.asarray(good))
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def quality_scores(
    predictor: Predictor, cases: Sequence[Case], per_case: int = 6
) -> tuple[list[float], list[bool]]:
    """Ask each case's single-target questions; the quality logit of every finding and whether its Dice is good."""
    slope, offset = predictor.config.calibration
    scores: list[float] = []
    good: list[bool] = []
    for case in cases:
        predictor.set_image(case.rgb)
        asked = [c.turns[0] for c in case.conversations if len(c.turns[0].targets) == 1]
        for turn in list({t.targets[0].label: t for t in asked}.values())[:per_case]:
            truth: NDArray[np.bool_] = np.isin(case.labels, turn.targets[0].value)
            for finding in predictor.ask(turn.question).findings:
                p = min(max(finding.confidence, 1e-6), 1 - 1e-6)
                scores.append((math.log(p / (1 - p)) - offset) / slope)
                good.append(dice(finding.mask, truth) >= GOOD_DICE)
    return scores, good


def calibrate(directory: Path, cases: Sequence[Case], device: str = "cpu") -> tuple[float, float, int]:
    """Slope, offset and number of findings they were fitted on, for the checkpoint in `directory`."""
    scores, good = quality_scores(Predictor.from_pretrained(directory, device), cases)
    slope, offset = fit_curve(scores, good)
    return slope, offset, len(scores)
