"""95 % intervals by a cluster bootstrap: whole patients are drawn with replacement, since the questions of one patient hang
together.

Everything is a matrix product: a draw is a vector of how often each patient was taken.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
LEVEL = 0.95
MIN_PATIENTS = 5
"""With fewer patients no interval is given: it would look surer than it is."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval (NaN where there is none), the number of cases and of patients behind it."""

    value: float
    low: float
    high: float
    n: int
    patients: int


def resampled_counts(patients: int, draws: int = DRAWS, seed: int = 0) -> Floats:
    """[draws, patients] float64: how often each patient occurs in each draw of `patients` with replacement."""
    chosen = np.random.default_rng(seed).integers(0, patients, (draws, patients))
    flat = (chosen + patients * np.arange(draws)[:, None]).ravel()
    return np.bincount(flat, minlength=draws * patients).reshape(draws, patients).astype(float)


def share(
    numerators: Sequence[float],
    denominators: Sequence[float],
    patients: Sequence[Hashable],
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """sum(numerators) / sum(denominators) over cases, with its interval over patients; a mean has denominators of 1.

    All three have one entry per case. Draws in which the denominators add up to 0 are left out.
    """
    top, bottom = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    who, names = _numbered(patients)
    value = float(top.sum() / bottom.sum()) if bottom.sum() else float("nan")
    if names < MIN_PATIENTS:
        return Estimate(value, float("nan"), float("nan"), len(top), names)
    counts = resampled_counts(names, draws, seed)
    below = counts @ np.bincount(who, bottom, names)
    above = counts @ np.bincount(who, top, names)
    return Estimate(value, *_limits(above[below > 0] / below[below > 0]), len(top), names)


def macro_interval(
    rows: Sequence[tuple[str, str, Hashable, float]], min_cases: int = 3, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Interval of `mean_within_then_over`: patients are drawn within each set, so that no set gets lost.

    rows: (set, target, patient, value). A target that a draw leaves out does not count in that draw.
    """
    return _limits(_macro_draws(rows, min_cases, draws, seed))


def macro_ratio_interval(
    above: Sequence[tuple[str, str, Hashable, float]],
    below: Sequence[tuple[str, str, Hashable, float]],
    min_cases: int = 3,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the ratio of two such means of the same cases: in each draw both are of the same patients. Row i of `above` and
    row i of `below` are of one case."""
    top, bottom = (_macro_draws(rows, min_cases, draws, seed) for rows in (above, below))
    return _limits(np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0))


def _macro_draws(
    rows: Sequence[tuple[str, str, Hashable, float]], min_cases: int, draws: int, seed: int
) -> Floats:
    """[draws] means over sets; NaN where there are too few patients."""
    sets: dict[str, list[tuple[str, Hashable, float]]] = {}
    for name, target, patient, value in rows:
        sets.setdefault(name, []).append((target, patient, value))
    drawn: list[Floats] = []
    patients = 0
    for number, (_, cases) in enumerate(sorted(sets.items())):
        who, names = _numbered([patient for _, patient, _ in cases])
        counts = resampled_counts(names, draws, seed + number)
        means = _target_means(cases, who, counts, min_cases)
        if means.shape[1]:
            patients += names
            drawn.append(_mean_of_finite(means))
    if patients < MIN_PATIENTS:
        return np.full(draws, np.nan)
    return _mean_of_finite(np.stack(drawn, axis=1))


def _target_means(
    cases: Sequence[tuple[str, Hashable, float]], who: NDArray[np.int64], counts: Floats, min_cases: int
) -> Floats:
    """[draws, targets]: the mean of each target with enough cases, NaN where a draw holds none of it."""
    values = np.asarray([value for _, _, value in cases], dtype=float)
    kind, targets = _numbered([target for target, _, _ in cases])
    means = []
    for t in range(targets):
        mine = kind == t
        if mine.sum() >= min_cases:
            n = counts @ np.bincount(who[mine], minlength=counts.shape[1])
            total = counts @ np.bincount(who[mine], values[mine], counts.shape[1])
            means.append(np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0))
    return np.stack(means, axis=1) if means else np.zeros((len(counts), 0))


def _mean_of_finite(values: Floats) -> Floats:
    """Mean over the second axis of what is not NaN; NaN where nothing is left."""
    known = np.isfinite(values)
    n = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def _numbered(names: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    """Each entry as a number from 0 in order of appearance, and how many different ones there are."""
    order: dict[Hashable, int] = {}
    return np.asarray([order.setdefault(name, len(order)) for name in names], dtype=np.int64), len(order)


def _limits(values: Floats) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    tail = 100.0 * (1.0 - LEVEL) / 2.0
    low, high = np.percentile(finite, [tail, 100.0 - tail])
    return float(low), float(high)
