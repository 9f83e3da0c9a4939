"""Fits when a structure that is asked for by name is called absent (`medsegr.denial`), on patients kept out of training.

The rule is a logistic regression; its offset is then moved so that no more than a chosen share of what is there is denied.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from medsegr.answering import Answerer
from medsegr.denial import said_logit
from medsegr.qa.schema import Turn
from medsegr.training.images import Case

DENIED = 0.035
"""Share of what is there that may be denied; on other patients it will be a little more."""
ENOUGH = 20
"""Questions of either answer without which nothing is fitted."""
PER_CASE = 8
"""Questions of either answer that are asked about an image."""


@dataclass(frozen=True)
class Named:
    """A question about one structure by name: `features` are `said_logit` of the probability of "No" and the overview's logit."""

    features: tuple[float, float]
    absent: bool
    dataset: str


@dataclass(frozen=True)
class Denial:
    """A rule for `ModelConfig.denial`, empty where too few questions were there, and what it does to those it was fitted on:
    shares of what is there and of what is absent that it denies, each set counting the same."""

    rule: tuple[float, ...]
    present: int
    absent: int
    present_denied: float = 0.0
    absent_denied: float = 0.0


def fit_denial(answerer: Answerer, cases: Sequence[Case], seed: int = 1) -> Denial:
    """Ask the answerer about the cases and fit its rule."""
    return fit_rule(ask_by_name(answerer, cases, seed))


def ask_by_name(answerer: Answerer, cases: Sequence[Case], seed: int = 1) -> list[Named]:
    """First questions for one structure by name, of each case `PER_CASE` at most for what is there and for what is absent."""
    rng = random.Random(seed)
    found = []
    for case in cases:
        named = [named for c in case.conversations if (named := _named(answerer, c.turns[0]))]
        if not named:
            continue
        prepared = answerer.prepare(case.rgb, answerer.scales)
        for absent in (False, True):
            some = [(turn, name) for turn, name, lacking in named if lacking == absent]
            for turn, name in rng.sample(some, min(PER_CASE, len(some))):
                said = said_logit(answerer.chance_of_denial(prepared, turn.question))
                found.append(Named((said, answerer.overview([prepared], name)), absent, case.dataset))
    return found


def _named(answerer: Answerer, turn: Turn) -> tuple[Turn, str, bool] | None:
    """The turn, the one structure that it asks for by name and whether that is absent; None for other questions."""
    names = answerer.asked(turn.question)
    if len(names.trained) != 1 or names.untrained:
        return None
    (name,) = names.trained
    if turn.kind == "explicit" and [target.label for target in turn.targets] == [name]:
        return turn, name, False
    return (turn, name, True) if turn.kind.startswith("absent") and name in turn.absent else None


def fit_rule(asked: Sequence[Named], denied: float = DENIED) -> Denial:
    """The rule that denies at most the share `denied` of what is there; sets count the same, whatever their size."""
    absent = np.array([a.absent for a in asked], dtype=bool)
    present = int(np.count_nonzero(~absent))
    if min(present, len(asked) - present) < ENOUGH:
        return Denial((), present, len(asked) - present)
    rows = np.array([a.features for a in asked])
    sizes = Counter((a.dataset, a.absent) for a in asked)
    weight = np.array([1 / sizes[a.dataset, a.absent] for a in asked])
    for kind in (absent, ~absent):
        weight[kind] /= weight[kind].sum()
    mean, scale = rows.mean(0), rows.std(0) + 1e-6
    fitted = LogisticRegression(C=1e2).fit((rows - mean) / scale, absent, weight * len(asked) / 2)
    slopes = fitted.coef_[0] / scale
    scores = rows @ slopes
    limit = _limit(scores[~absent], weight[~absent], denied)
    said = scores >= limit
    shares = [float(weight[kind & said].sum()) for kind in (~absent, absent)]
    rule = (*(float(s) for s in slopes), -float(limit))
    return Denial(rule, present, len(asked) - present, *shares)


def _limit(scores: NDArray[np.float64], weight: NDArray[np.float64], share: float) -> float:
    """The least limit such that the scores at or above it weigh at most `share` of all, whose weights sum to 1."""
    order = np.argsort(-scores)
    beyond = np.cumsum(weight[order])
    return float(np.nextafter(scores[order][int(np.searchsorted(beyond, share, side="right"))], np.inf))
