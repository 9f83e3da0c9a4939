"""The figures of a report: each is a sum over cases divided by another, so one bootstrap serves all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from medsegr.evaluation.bootstrap import Estimate, share
from medsegr.evaluation.case import Case

Part = tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """`part` gives a case's share of numerator and denominator, None where the figure does not apply to it."""

    name: str
    title: str
    meaning: str
    part: Callable[[Case], Part | None]
    digits: int = 3


def _mean(value: float | bool | None, when: bool = True) -> Part | None:
    return (float(value), 1.0) if when and value is not None else None


def _first(case: Case, kind: str) -> bool:
    return case.kind == kind and case.turn == 1


FIGURES: tuple[Figure, ...] = (
    Figure("dice", "Dice", "mean over questions about something present; the union of all masks against the union of all "
           "targets", lambda c: _mean(c.dice, c.expected > 0)),
    Figure("dice_explicit", "Dice, by name", "the same for first questions that name one structure",
           lambda c: _mean(c.dice, _first(c, "explicit"))),
    Figure("dice_implicit", "Dice, by fact", "the same for first questions that describe one structure",
           lambda c: _mean(c.dice, _first(c, "implicit"))),
    Figure("matched", "Dice per target", "mean over a question's targets of the Dice of the mask that the answer gives this "
           "name, 0 without one", lambda c: _mean(c.matched)),
    Figure("giou", "gIoU", "mean IoU over all questions; an absent structure counts 1 if nothing was drawn, else 0",
           lambda c: _mean(c.iou)),
    Figure("ciou", "cIoU", "all intersections over all unions; large structures prevail",
           lambda c: (float(c.intersection), float(c.union))),
    Figure("pr_70", "Pr@0.7", "share of present targets with IoU of 0.7 or more", lambda c: _mean(c.iou >= 0.7, c.expected > 0)),
    Figure("pr_80", "Pr@0.8", "the same at 0.8", lambda c: _mean(c.iou >= 0.8, c.expected > 0)),
    Figure("pr_90", "Pr@0.9", "the same at 0.9", lambda c: _mean(c.iou >= 0.9, c.expected > 0)),
    Figure("nsd_mm", "NSD, 2 mm", "share of both outlines within 2 mm of the other; one present target, spacing known",
           lambda c: _mean(c.nsd, c.unit == "mm")),
    Figure("nsd_px", "NSD, 2 px", "the same within 2 pixels, where the spacing is unknown",
           lambda c: _mean(c.nsd, c.unit == "px")),
    Figure("hd95_mm", "HD95, mm", "95th percentile of the distance between the outlines; the image's diagonal where nothing was "
           "drawn", lambda c: _mean(c.hd95, c.unit == "mm"), 1),
    Figure("hd95_px", "HD95, px", "the same in pixels, where the spacing is unknown", lambda c: _mean(c.hd95, c.unit == "px"), 1),
    Figure("emission", "[SEG]", "share of questions about something present whose answer holds a mask token",
           lambda c: _mean(c.emitted > 0, c.expected > 0)),
    Figure("t_acc", "T-acc", "share of questions about something present answered with a mask",
           lambda c: _mean(not c.empty, c.expected > 0)),
    Figure("n_acc", "N-acc", "share of questions about something absent answered without a mask",
           lambda c: _mean(c.empty, c.absent)),
    Figure("count", "count right", "as many mask tokens as targets", lambda c: _mean(c.emitted == c.expected)),
    Figure("undrawn", "no outline", "share of answers with a mask token whose mask came out empty",
           lambda c: _mean(c.drawn < c.emitted, c.emitted > 0)),
    Figure("named", "named right", "the answer names exactly the targets", lambda c: _mean(c.named, c.expected > 0)),
    Figure("chose", "target choice", "the mask overlaps the target more than any other structure of the image; images with "
           "several disjoint targets", lambda c: _mean(c.chose)),
    Figure("token_f1", "token F1", "words shared with the reference answer", lambda c: _mean(c.token_f1)),
    Figure("rouge_l", "ROUGE-L", "longest common subsequence with the reference answer", lambda c: _mean(c.rouge_l)),
    Figure("bleu", "BLEU", "mean of the answers' own BLEU against the reference answer", lambda c: _mean(c.bleu)),
    Figure("places_truth", "place words", "share of the answer's side and position words that the true mask's centroid confirms",
           lambda c: _mean(c.places_truth)),
    Figure("places_drawn", "words and mask agree", "the same for the mask that was drawn", lambda c: _mean(c.places_drawn)),
    Figure("reason", "reason holds", "the stated reason is known of the structure that was asked for", lambda c: _mean(c.reason)),
    Figure("measured", "measured right", "the larger one, the number or the side is that of the true masks (of more than 5, "
           "a fifth may be missed)", lambda c: _mean(c.measured)),
    Figure("listed", "listed", "F1 of the structures listed, where everything was asked for", lambda c: _mean(c.listed)),
)  # fmt: skip
BY_NAME = {figure.name: figure for figure in FIGURES}


def estimate(figure: Figure, cases: Sequence[Case]) -> Estimate:
    """A figure over some cases, with its interval over patients; cases to which it does not apply are left out."""
    parts = [(part, case.patient) for case in cases if (part := figure.part(case)) is not None]
    return share([p[0] for p, _ in parts], [p[1] for p, _ in parts], [who for _, who in parts])


def group(cases: Sequence[Case]) -> dict[str, Any]:
    """All figures of some cases as plain values: `{"n", "patients", "images", "figures": {name: {"value", "low", "high", "n"}}}`.

    Figures that apply to none of the cases are left out; low and high are NaN where there are too few patients.
    """
    found = {figure.name: estimate(figure, cases) for figure in FIGURES}
    return {
        "n": len(cases),
        "patients": len({case.patient for case in cases}),
        "images": len({(case.dataset, case.image) for case in cases}),
        "figures": {
            name: {"value": e.value, "low": e.low, "high": e.high, "n": e.n}
            for name, e in found.items()
            if e.n and not math.isnan(e.value)
        },
    }
