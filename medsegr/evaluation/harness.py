"""Evaluation by free generation: the model must write `[SEG]` itself; history in multi-turn is what it said before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsegr.evaluation.metrics import (
    chose_target,
    dice,
    iou,
    mean_within_then_over,
    no_target_accuracy,
    target_accuracy,
)
from medsegr.predictor import Predictor, Reply
from medsegr.qa.schema import Conversation, Target, Turn

ABSENT = ("absent_same_set", "absent_elsewhere")


@dataclass(frozen=True)
class Case:
    """One answered turn. `dice`, `iou` compare the union of all masks with the union of the targets; `emitted` counts the `[SEG]`
    tokens, also those whose mask came out empty; `named` says whether the answer's phrases are exactly
    the targets' labels; `chose` is None where the image has no second, disjoint target."""

    conversation: str
    dataset: str
    modality: str
    patient_id: str
    image: str
    kind: str
    turn: int
    target: str
    fact: str
    answer: str
    emitted: int
    expected: int
    empty: bool
    dice: float
    iou: float
    confidence: float
    named: bool
    chose: bool | None


def truth_mask(target: Target, root: Path) -> NDArray[np.bool_]:
    """[H, W] bool on the image's grid."""
    with Image.open(root / target.mask) as image:
        return np.isin(np.asarray(image), target.value)


def _others(targets: Sequence[Target], asked: Target) -> list[Target]:
    """Targets of the same image that share no mask value with the asked one."""
    return [t for t in targets if not set(t.value) & set(asked.value)]


def _score(
    c: Conversation, number: int, turn: Turn, answer: Reply, root: Path, present: Sequence[Target]
) -> Case:
    """Compare one reply with the truth; `present` are the image's known targets."""
    masks = [f.mask for f in answer.findings]
    expected = [truth_mask(t, root) for t in turn.targets]
    shape = expected[0].shape if expected else masks[0].shape if masks else (1, 1)
    nothing = np.zeros(shape, dtype=bool)
    predicted, truth = np.any([nothing, *masks], axis=0), np.any([nothing, *expected], axis=0)
    chose = None
    if len(turn.targets) == 1:
        others = _others(present, turn.targets[0])
        if others:
            truths = {turn.targets[0].label: truth, **{t.label: truth_mask(t, root) for t in others}}
            chose = chose_target(predicted, turn.targets[0].label, truths)
    labels = [t.label for t in turn.targets] or list(turn.absent)
    return Case(
        conversation=c.id,
        dataset=c.dataset,
        modality=c.modality,
        patient_id=c.patient_id,
        image=c.image,
        kind=turn.kind,
        turn=number,
        target=" + ".join(labels),
        fact=turn.fact or "",
        answer=answer.text,
        emitted=len(answer.findings) + len(answer.undrawn),
        expected=len(turn.targets),
        empty=not predicted.any(),
        dice=dice(predicted, truth),
        iou=iou(predicted, truth),
        confidence=float(np.mean([f.confidence for f in answer.findings])) if answer.findings else 0.0,
        named=sorted(f.phrase for f in answer.findings) == sorted(t.label for t in turn.targets),
        chose=chose,
    )


def evaluate(
    predictor: Predictor, conversations: Sequence[Conversation], root: Path, on_case: Callable[[Case], None]
) -> list[Case]:
    """Answer every turn; `on_case` sees each result as it comes. Conversations of one image should follow each other."""
    present: dict[str, dict[str, Target]] = {}
    for c in conversations:
        known = present.setdefault(c.image, {})
        known.update({t.label: t for turn in c.turns for t in turn.targets})
    cases: list[Case] = []
    current = ""
    for c in conversations:
        if c.image != current:
            predictor.set_image(root / c.image, c.modality)
            current = c.image
        history: list[tuple[str, str]] = []
        for number, turn in enumerate(c.turns, start=1):
            reply = predictor.ask(turn.question, history)
            history.append((turn.question, reply.text))
            cases.append(_score(c, number, turn, reply, root, list(present[c.image].values())))
            on_case(cases[-1])
    return cases


def summarise(
    cases: Sequence[Case], small_sets: int = 5, apart: Sequence[str] = ("spinal_cord_mr",)
) -> dict[str, Any]:
    """The figures of a report. Means are over the cases of a target (>= 3), the targets of a set, then the sets; sets with fewer
    than `small_sets` images and those named in `apart` are listed by themselves. N-acc is that of structures
    asked for by name; asked for by a fact it is given apart."""
    images: dict[str, set[str]] = {}
    for case in cases:
        images.setdefault(case.dataset, set()).add(case.image)
    main = {name for name, found in images.items() if len(found) >= small_sets and name not in apart}
    summary: dict[str, Any] = {
        "questions": len(cases),
        "images": {k: len(v) for k, v in sorted(images.items())},
    }
    for kind in ("explicit", "implicit"):
        rows = [c for c in cases if c.kind == kind and c.turn == 1]
        mean, sets = mean_within_then_over((c.dataset, c.target, c.dice) for c in rows if c.dataset in main)
        others = mean_within_then_over(
            ((c.dataset, c.target, c.dice) for c in rows if c.dataset not in main), min_cases=1
        )[1]
        chosen = [c.chose for c in rows if c.chose is not None]
        summary[kind] = {
            "dice": mean,
            "sets": dict(sorted(sets.items())),
            "small_sets": others,
            "questions": len(rows),
            "emission": target_accuracy([c.emitted == 0 for c in rows]),
            "t_acc": target_accuracy([c.empty for c in rows]),
            "named_right": float(np.mean([c.named for c in rows])) if rows else float("nan"),
            "chose_target": float(np.mean(chosen)) if chosen else float("nan"),
            "chose_target_questions": len(chosen),
        }
    present = [c for c in cases if c.expected]
    absent = [c for c in cases if c.kind in ABSENT and not c.fact]
    described = [c for c in cases if c.kind in ABSENT and c.fact]
    summary["emission"] = target_accuracy([c.emitted == 0 for c in present])
    summary["n_acc"] = no_target_accuracy([c.empty for c in absent])
    summary["n_acc_by_held_out_fact"] = no_target_accuracy([c.empty for c in described])
    summary["questions_absent_by_held_out_fact"] = len(described)
    for kind in ABSENT:
        summary[f"n_acc_{kind.removeprefix('absent_')}"] = no_target_accuracy(
            [c.empty for c in absent if c.kind == kind]
        )
        summary[f"questions_{kind}"] = sum(c.kind == kind for c in absent)
    return summary


def as_row(case: Case) -> dict[str, Any]:
    """A CSV row."""
    return asdict(case)
