"""The gate: whether a challenger may take over from the champion. A pure function of their scores on the same cases.

A challenger is adopted only if it is better on what was corrected (the lower bound of the paired difference is above zero, and
what is new to the model is outlined usefully), no structure that it knew loses more than a margin, shipped or taught here, and it
still says when to outline something and when nothing is there. Too few cases are no verdict: the round is "collecting".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from medsegr.evaluation.bootstrap import resampled_counts
from medsegr.rounds.tables import RoundStatus

DRAWS = 2000
LEVEL = 0.95
UNKNOWN = 0.05
MANY = 10
"""Cases over which a mean is taken for certain enough to be held to the margin itself."""
FOUND, LOST = 0.5, 0.5
"""A structure that had this mean Dice and keeps less than this share of it is lost, however few cases say so."""
ABSENT = "absent"
OLD = ("regression", "remembered")
"""Kinds of cases about what shipped."""


@dataclass(frozen=True)
class GateConfig:
    """One configuration for all sites. `min_patients`: validation patients that a corrected structure needs; `useful`: mean Dice
    that a structure must reach which the champion does not find at all (mean below `UNKNOWN`); `margin`: what may be lost by a
    corrected structure, and by an old one, or all that a public set shows, with `MANY` cases; one with fewer may lose more
    (`fell`), and with less than `min_old_cases` it may not be lost (`LOST`).
    `lone_margin`: what a corrected structure with fewer patients may lose; `mean_margin`: what old ones may lose on average;
    `share_margin`: what emission and N-acc may lose, if that is more than one question; `regression`: a set to compare old
    structures on must be there."""

    min_patients: int = 3
    useful: float = 0.5
    min_old_cases: int = 3
    margin: float = 0.05
    lone_margin: float = 0.2
    mean_margin: float = 0.015
    share_margin: float = 0.05
    regression: bool = True


@dataclass(frozen=True)
class Scored:
    """One question answered by both models.

    `kind` is "corrected" (a validation case of the ledger), "regression" (the fixed set), "remembered" (a replay picture, of a
    structure that the fixed set has no case of), or "absent_corrected" and "absent" (of the first two, where nothing is there to
    outline). Dice is 1 for "not present" said rightly, 0 otherwise; `emitted` says whether anything was outlined. `dataset`: the
    public set of a regression case.
    """

    kind: str
    label: str
    patient: str
    champion: float
    challenger: float
    champion_emitted: bool
    challenger_emitted: bool
    dataset: str = ""


@dataclass(frozen=True)
class Row:
    """One structure's figures; `low` and `high` bound the paired difference (NaN with fewer than two patients)."""

    kind: str
    label: str
    cases: int
    patients: int
    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True)
class Decision:
    """What the gate says: a status, one sentence, the figures behind it."""

    status: RoundStatus
    sentence: str
    rows: tuple[Row, ...]
    numbers: Mapping[str, float]

    @property
    def adopted(self) -> bool:
        """Whether the challenger takes over."""
        return self.status is RoundStatus.ADOPTED

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; a figure that does not exist is null."""
        rows = [
            {k: None if isinstance(v, float) and v != v else v for k, v in asdict(row).items()}
            for row in self.rows
        ]
        numbers = {k: None if v != v else round(v, 4) for k, v in self.numbers.items()}
        return {"status": self.status.value, "sentence": self.sentence, "rows": rows, "numbers": numbers}


def decide(
    scores: Sequence[Scored],
    corrected: Sequence[str],
    config: GateConfig = GateConfig(),
    since: Sequence[Scored] = (),
) -> Decision:
    """Judge a challenger. `corrected` are the structures that the round's corrections are about; `since` are scores of old cases
    with the checkpoint that learning began with in the champion's place, those of the last `scores`, or small losses of many
    rounds would add up."""
    rows = _rows(scores)
    numbers = _numbers(scores)
    judged = [r for r in rows if r.kind == "corrected" and r.label in set(corrected)]
    if early := too_few({r.label: r.patients for r in judged}, corrected, config):
        return replace(early, rows=rows, numbers={**numbers, **early.numbers})
    enough = [r for r in judged if r.patients >= config.min_patients]
    kept = {r.label for r in enough}
    cases = [s for s in scores if s.kind == "corrected" and s.label in kept]
    mean, low, high = paired(cases)
    after = float(np.mean([s.challenger for s in cases]))
    numbers |= {"gain": mean, "gain_low": low, "gain_high": high, "corrected_after": after}
    reasons = _taught_losses(rows, config) + list(_old_losses(scores, config).values())
    if not any(r.kind == "regression" for r in rows) and config.regression:
        reasons.append("there is no regression set beside the weights to compare old structures on")
    reasons += _share_losses(numbers, config)
    reasons += _losses_since(since, scores, config)
    if not low > 0:
        reasons.insert(
            0,
            f"on corrected structures the gain is {mean:+.3f} with a lower bound of {low:+.3f}, not above zero",
        )
    useless = [r for r in enough if r.before < UNKNOWN and r.after < config.useful]
    reasons[:0] = [
        f"{r.label} reaches a Dice of {r.after:.2f}, below the {config.useful:.2f} that is useful"
        for r in useless
    ]
    if reasons:
        return Decision(RoundStatus.REFUSED, f"Not adopted, because {'; '.join(reasons)}.", rows, numbers)
    old = _several(len({r.label for r in rows if r.kind in OLD}), "old structure")
    sentence = (
        f"Adopted: on {_several(len({s.patient for s in cases}), 'validation patient')} the Dice of {_named(kept)} rises by "
        f"{mean:+.3f} (at least {low:+.3f}) to {after:.2f}, and of {old} none got worse by more than its margin."
    )
    if unjudged := set(corrected) - kept:
        sentence += f" Too few validation patients to judge {_named(unjudged)}."
    return Decision(RoundStatus.ADOPTED, sentence, rows, numbers)


def too_few(
    patients: Mapping[str, int], corrected: Sequence[str], config: GateConfig = GateConfig()
) -> Decision | None:
    """The decision "collecting" where no corrected structure has enough validation patients (`patients`: structure -> how many),
    so that nothing needs to be trained; else None."""
    missing = {label: config.min_patients - patients.get(label, 0) for label in corrected}
    if any(count <= 0 for count in missing.values()):
        return None
    numbers = {"missing": float(min(missing.values(), default=config.min_patients))}
    return Decision(RoundStatus.COLLECTING, _collecting(missing, config), (), numbers)


def paired(scores: Sequence[Scored]) -> tuple[float, float, float]:
    """Mean difference challenger - champion, and its 95 % interval over patients: the wider one, on either side, of the bootstrap
    that draws whole patients (too narrow for a handful of them) and Student's t on the patients' means."""
    if not scores:
        return float("nan"), float("nan"), float("nan")
    difference = np.asarray([s.challenger - s.champion for s in scores])
    names = {name: n for n, name in enumerate(dict.fromkeys(s.patient for s in scores))}
    who = np.asarray([names[s.patient] for s in scores])
    if len(names) < 2:
        return float(difference.mean()), float("nan"), float("nan")
    counts = resampled_counts(len(names), DRAWS)
    total = counts @ np.bincount(who, difference, len(names))
    draws: NDArray[np.float64] = total / (counts @ np.bincount(who, minlength=len(names)).astype(float))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(draws, (tail, 100 - tail))
    means = np.bincount(who, difference, len(names)) / np.bincount(who, minlength=len(names))
    half = float(student.ppf(1 - tail / 100, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5)
    low, high = min(low, means.mean() - half), max(high, means.mean() + half)
    return float(difference.mean()), float(low), float(high)


def _rows(scores: Sequence[Scored]) -> tuple[Row, ...]:
    grouped: dict[tuple[str, str], list[Scored]] = defaultdict(list)
    for score in scores:
        if not score.kind.startswith(ABSENT):
            grouped[score.kind, score.label].append(score)
    rows = []
    for (kind, label), of in sorted(grouped.items()):
        _, low, high = paired(of)
        before, after = (float(np.mean([getattr(s, who) for s in of])) for who in ("champion", "challenger"))
        rows.append(Row(kind, label, len(of), len({s.patient for s in of}), before, after, low, high))
    return tuple(rows)


def _numbers(scores: Sequence[Scored]) -> dict[str, float]:
    """Of both: emission on regression questions about what is there, N-acc on those about what is not and on validation cases."""
    found: dict[str, float] = {}
    for who in ("champion", "challenger"):
        for kind, name, emitted in (
            ("regression", "emission", True),
            (ABSENT, "n_acc", False),
            (f"{ABSENT}_corrected", "n_acc_corrected", False),
        ):
            right = [getattr(s, f"{who}_emitted") is emitted for s in scores if s.kind == kind]
            found[f"{who}_{name}"] = float(np.mean(right)) if right else float("nan")
            found[f"{name}_questions"] = float(len(right))
    return found


def _taught_losses(rows: Sequence[Row], config: GateConfig) -> list[str]:
    """Which structures with validation cases got worse by more than their margin."""
    return [
        _falls(row.label, row.before, row.after)
        for row in rows
        if row.kind == "corrected"
        and row.before - row.after
        > (config.margin if row.patients >= config.min_patients else config.lone_margin)
    ]


def _old_losses(scores: Sequence[Scored], config: GateConfig) -> dict[str, str]:
    """What that shipped got worse by more than its margin, in words: structures, all of them together, and what each public set
    shows."""
    rows = [row for row in _rows(scores) if row.kind in OLD]
    found = {r.label: _falls(r.label, r.before, r.after) for r in rows if _old_lost(r, config)}
    changes = [r.after - r.before for r in rows if r.kind == "regression"]
    if changes and float(np.mean(changes)) < -config.mean_margin:
        found[""] = f"old structures lose {-float(np.mean(changes)):.3f} on average"
    return found | _set_losses(scores, config)


def _losses_since(since: Sequence[Scored], scores: Sequence[Scored], config: GateConfig) -> list[str]:
    """The same against the checkpoint that learning began with, and whether the champion is to blame."""
    champion = [
        replace(s, challenger=now.champion, challenger_emitted=now.champion_emitted)
        for s, now in zip(since, scores[len(scores) - len(since) :], strict=True)
    ]
    already = _old_losses(champion, config)
    return [
        f"since learning began, {reason}{' (the version in charge has lost it already)' if what in already else ''}"
        for what, reason in _old_losses(since, config).items()
    ]


def _old_lost(row: Row, config: GateConfig) -> bool:
    lost = row.before >= FOUND and row.after < LOST * row.before
    enough = row.cases >= config.min_old_cases
    return lost or (enough and fell(row.after - row.before, row.high, row.cases, config))


def _share_losses(numbers: Mapping[str, float], config: GateConfig) -> list[str]:
    """Whether outlines are still given, and absent structures denied."""
    reasons = []
    for name, words in (
        ("emission", "outlines asked for are given"),
        ("n_acc", "absent structures are denied"),
        ("n_acc_corrected", "structures that clinicians denied are denied"),
    ):
        before, after = numbers[f"champion_{name}"], numbers[f"challenger_{name}"]
        fewer = (before - after) * numbers[f"{name}_questions"]
        several = fewer > 1.5  # one question is no verdict
        if before - after > config.share_margin and several:  # never so for NaN
            reasons.append(f"{words} in {100 * after:.0f} % in place of {100 * before:.0f} %")
    return reasons


def _falls(what: str, before: float, after: float) -> str:
    return f"{what} falls from {before:.2f} to {after:.2f}"


def fell(change: float, high: float, cases: int, config: GateConfig) -> bool:
    """Whether what is old lost more than the margin. With less than `MANY` cases the mean is less certain: the margin is as much
    wider, and since one outline that is missed can make more, the interval of the change must end at `high` below zero; cases of
    one patient have no interval (NaN), and are taken at their word."""
    if cases >= MANY:
        return change < -config.margin
    return change < -config.margin * math.sqrt(MANY / cases) and not high >= 0


def _set_losses(scores: Sequence[Scored], config: GateConfig) -> dict[str, str]:
    """Which public sets lost more than they may, all their structures together: some have more structures than cases of each."""
    sets: dict[str, list[Scored]] = defaultdict(list)
    for score in scores:
        if score.kind == "regression":
            sets[score.dataset].append(score)
    found = {}
    for name, of in sorted(sets.items()):
        before, after = (float(np.mean([getattr(s, who) for s in of])) for who in ("champion", "challenger"))
        change, _, high = paired(of)
        several = len({s.label for s in of}) > 1  # one structure alone is judged by its name
        if several and len(of) >= config.min_old_cases and fell(change, high, len(of), config):
            found[f"set {name}"] = _falls(f"what {name} shows", before, after)
    return found


def _collecting(missing: Mapping[str, int], config: GateConfig) -> str:
    if not missing:
        return "Collecting: no corrected structure has a validation patient yet."
    label, count = min(missing.items(), key=lambda item: item[1])
    return (
        f"Collecting: {_several(count, 'more validation patient')} with {label} {'is' if count == 1 else 'are'} needed "
        f"before a new version can be judged ({config.min_patients} in all)."
    )


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _named(names: set[str]) -> str:
    listed = sorted(names)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
