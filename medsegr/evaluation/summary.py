"""The figures of `metrics.json`, from the cases alone: the same rows give the same figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from medsegr.evaluation.averages import mean_within_then_over
from medsegr.evaluation.bootstrap import macro_interval, share
from medsegr.evaluation.calibration import expected_calibration_error, reliability
from medsegr.evaluation.case import ABSENT, Case
from medsegr.evaluation.consistency import Agreement
from medsegr.evaluation.figures import group
from medsegr.evaluation.no_target import no_target_accuracy, target_accuracy
from medsegr.evaluation.text import corpus_bleu

GOOD_DICE = 0.7
"""What a finding's confidence is the probability of: a Dice of at least this."""
KINDS: dict[str, Callable[[Case], bool]] = {
    "explicit": lambda c: c.kind == "explicit",
    "implicit, fact of training": lambda c: c.kind == "implicit" and not c.held_out,
    "implicit, held-out fact": lambda c: c.kind == "implicit" and c.held_out,
    "multi-target": lambda c: c.kind == "multi",
    "everything": lambda c: c.kind == "all",
    "comparison": lambda c: c.kind == "comparison",
    "count": lambda c: c.kind == "count",
    "side": lambda c: c.kind == "side",
    "reason asked for": lambda c: c.kind == "why",
    "neighbour": lambda c: c.kind == "neighbour",
    "absent in the same set, by name": lambda c: c.kind == "absent_same_set" and not c.fact,
    "absent in the same set, by fact": lambda c: c.kind == "absent_same_set" and bool(c.fact),
    "absent elsewhere, by name": lambda c: c.kind == "absent_elsewhere" and not c.fact,
    "absent elsewhere, by fact": lambda c: c.kind == "absent_elsewhere" and bool(c.fact),
}
TURNS: dict[str, Callable[[Case], bool]] = {
    "turn 1": lambda c: c.turn == 1,
    "turn 2": lambda c: c.turn == 2,
    "turn 3 and later": lambda c: c.turn > 2,
}


def summarise(
    cases: Sequence[Case],
    small_sets: int = 5,
    apart: Sequence[str] = ("spinal_cord_mr",),
    agreements: Sequence[Agreement] = (),
) -> dict[str, Any]:
    """The figures of a report. Means are over the cases of a target (>= 3), the targets of a set, then the sets; sets with
    fewer than `small_sets` images and those named in `apart` are listed by themselves. N-acc is that of structures asked
    for by name; asked for by a fact it is given apart. Further wordings of a question count for `paraphrases` only, which
    is made from `agreements`. The groups (`overall`, `by_…`) hold every figure with its interval, see `figures.group`."""
    cases = [case for case in cases if case.wording == 1]
    images: dict[str, set[str]] = {}
    for case in cases:
        images.setdefault(case.dataset, set()).add(case.image)
    main = {name for name, found in images.items() if len(found) >= small_sets and name not in apart}
    return {
        "questions": len(cases),
        "images": {k: len(v) for k, v in sorted(images.items())},
        "patients": len({case.patient for case in cases}),
        **{kind: _first_questions(cases, kind, main) for kind in ("explicit", "implicit")},
        **_absence(cases),
        "calibration": _calibration(cases),
        "paraphrases": _paraphrases(agreements),
        "follow_ups": _follow_ups(cases),
        "corpus_bleu": corpus_bleu([c.answer for c in cases], [c.reference for c in cases]),
        "overall": group(cases),
        "by_kind": _groups(cases, KINDS),
        "by_turn": _groups(cases, TURNS),
        "by_modality": _named_groups(cases, lambda c: c.modality),
        "by_set": _named_groups(cases, lambda c: c.dataset),
        "by_target": _named_groups(
            (c for c in cases if c.expected <= 1 and " + " not in c.target), lambda c: c.target
        ),
    }


def _first_questions(cases: Sequence[Case], kind: str, main: set[str]) -> dict[str, Any]:
    """First questions about one structure, by name or by a fact; `main`: the sets that make the mean."""
    rows = [c for c in cases if c.kind == kind and c.turn == 1]
    mean, sets = mean_within_then_over((c.dataset, c.target, c.dice) for c in rows if c.dataset in main)
    others = mean_within_then_over(
        ((c.dataset, c.target, c.dice) for c in rows if c.dataset not in main), min_cases=1
    )[1]
    low, high = macro_interval([(c.dataset, c.target, c.patient, c.dice) for c in rows if c.dataset in main])
    chosen = [c.chose for c in rows if c.chose is not None]
    return {
        "dice": mean,
        "dice_low": low,
        "dice_high": high,
        "sets": dict(sorted(sets.items())),
        "small_sets": others,
        "questions": len(rows),
        "emission": target_accuracy([c.emitted == 0 for c in rows]),
        "t_acc": target_accuracy([c.empty for c in rows]),
        "named_right": float(np.mean([c.named for c in rows])) if rows else float("nan"),
        "chose_target": float(np.mean(chosen)) if chosen else float("nan"),
        "chose_target_questions": len(chosen),
    }


def _absence(cases: Sequence[Case]) -> dict[str, Any]:
    """Emission on what is present, N-acc on what is absent."""
    absent = [c for c in cases if c.absent and not c.fact]
    described = [c for c in cases if c.absent and c.fact]
    found: dict[str, Any] = {
        "emission": target_accuracy([c.emitted == 0 for c in cases if c.expected]),
        "n_acc": no_target_accuracy([c.empty for c in absent]),
        "n_acc_by_held_out_fact": no_target_accuracy([c.empty for c in described]),
        "questions_absent_by_held_out_fact": len(described),
    }
    for kind in ABSENT:
        found[f"n_acc_{kind.removeprefix('absent_')}"] = no_target_accuracy(
            [c.empty for c in absent if c.kind == kind]
        )
        found[f"questions_{kind}"] = sum(c.kind == kind for c in absent)
    return found


def _calibration(cases: Sequence[Case]) -> dict[str, Any]:
    """Answers with one mask to questions about at most one structure: is their Dice good as often as the confidence says? A
    mask of something absent is never good."""
    judged = [c for c in cases if c.drawn == 1 and c.expected <= 1]
    confidence, good = (
        [c.confidence for c in judged],
        [c.expected == 1 and c.dice >= GOOD_DICE for c in judged],
    )
    return {
        "ece": expected_calibration_error(confidence, good),
        "n": len(judged),
        "bins": [asdict(b) for b in reliability(confidence, good)],
    }


def _paraphrases(agreements: Sequence[Agreement]) -> dict[str, Any]:
    found = share([a.dice for a in agreements], [1.0] * len(agreements), [a.patient for a in agreements])
    return {**asdict(found), "wordings": sum(a.wordings for a in agreements)}


def _follow_ups(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Dice by turn in conversations that ask for three structures by name; what was said before is the model's own."""
    named: dict[str, list[Case]] = {}
    for case in cases:
        named.setdefault(case.conversation, []).append(case)
    chosen = [
        turns for turns in named.values() if len(turns) == 3 and all(c.kind == "explicit" for c in turns)
    ]
    return {
        f"turn {n}": {"dice": float(np.mean([turns[n - 1].dice for turns in chosen])), "n": len(chosen)}
        for n in (1, 2, 3)
        if chosen
    }


def _groups(cases: Sequence[Case], tests: dict[str, Callable[[Case], bool]]) -> dict[str, Any]:
    """Groups in the order of `tests`; empty ones are left out."""
    chosen = {name: [c for c in cases if test(c)] for name, test in tests.items()}
    return {name: group(rows) for name, rows in chosen.items() if rows}


def _named_groups(cases: Iterable[Case], name: Callable[[Case], str]) -> dict[str, Any]:
    """Groups by a name, in its order."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(name(case), []).append(case)
    return {key: group(found[key]) for key in sorted(found)}
