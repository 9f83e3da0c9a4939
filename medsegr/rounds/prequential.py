"""The prequential score of a correction: how good the answer was, judged by the correction it got. A pure function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegr.evaluation.metrics import dice
from medsegr.rounds.corrections import Correction, Origin, Verdict

Mask = NDArray[np.bool_]


def prequential(
    correction: Correction,
    found: Sequence[dict[str, Any]],
    answered: Sequence[Mask],
    corrected: Sequence[Mask],
) -> dict[str, float]:
    """Label -> Dice of what the turn `found` (with the masks `answered`) against the masks `corrected`, in the order of the
    correction's findings; findings of one label count together. All masks are bool arrays of one shape.

    A finding of the turn that the correction does not have (it was given another name) is compared with an empty mask. Where
    the correction speaks of some findings only - a rejection, or a label map of a datastore - the turn's others have no
    score, and neither has a label of the map that both leave empty: nobody may have asked for it.
    """
    whole = correction.origin is Origin.PANEL and correction.verdict is not Verdict.REJECTED
    truth = _by_label(correction.findings)
    answer = _by_label(found)
    labels = {**{label: name for label, (name, _) in answer.items() if whole or label in truth}}
    labels |= {label: name for label, (name, _) in truth.items()}
    scores: dict[str, float] = {}
    for label, name in labels.items():
        mine, theirs = answer.get(label, ("", []))[1], truth.get(label, ("", []))[1]
        if (
            not mine
            and correction.origin is Origin.DATASTORE
            and not any(correction.findings[k]["present"] for k in theirs)
        ):
            continue
        shape = (answered if mine else corrected)[(mine or theirs)[0]].shape
        scores[name] = dice(_union(answered, mine, shape), _union(corrected, theirs, shape))
    return scores


def _by_label(findings: Sequence[dict[str, Any]]) -> dict[str, tuple[str, list[int]]]:
    """Label without regard to case -> its spelling, and the places of the findings that have it."""
    found: dict[str, tuple[str, list[int]]] = {}
    for place, finding in enumerate(findings):
        found.setdefault(finding["label"].casefold(), (finding["label"], []))[1].append(place)
    return found


def _union(masks: Sequence[Mask], places: Sequence[int], shape: tuple[int, ...]) -> Mask:
    total = np.zeros(shape, np.bool_)
    for place in places:
        total |= masks[place]
    return total
