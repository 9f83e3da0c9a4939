"""Averages of averages: over the cases of a target, the targets of a set, then the sets; and over pairs."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


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
    return mean_over_sets(sets), sets


def mean_over_sets(sets: Mapping[str, float]) -> float:
    """Mean over sets, each counting once; NaN of nothing."""
    return float(np.mean(list(sets.values()))) if sets else float("nan")


def mean_pairwise(items: Sequence[T], score: Callable[[T, T], float]) -> float:
    """Mean of a symmetric score over all pairs of `items`; NaN for fewer than two.

    With Dice and the masks that rewordings of one question gave, this is the paraphrase consistency.
    """
    pairs = [score(a, b) for a, b in itertools.combinations(items, 2)]
    return float(np.mean(pairs)) if pairs else float("nan")
