"""One reply against the truth: everything that `per_case.csv` says about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medsegr.evaluation.case import Case
from medsegr.evaluation.overlap import Mask, dice, intersection_and_union
from medsegr.evaluation.places import share_confirmed, stated_directions
from medsegr.evaluation.reasons import KnownReasons
from medsegr.evaluation.surface import surface_scores
from medsegr.evaluation.text import bleu, rouge_l, token_f1
from medsegr.evaluation.truth import Scene
from medsegr.measured import count, larger, side
from medsegr.model.tokens import plain
from medsegr.predictor import Finding, Reply
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.schema import Conversation, Target, Turn

FEW, ROUGHLY = 5, 0.2
"""Up to so many pieces have to be counted exactly; of more, the count may be this share off."""


@dataclass(frozen=True)
class Asked:
    """A question as it was put: `turn` of the conversation, `number` from 1, in its `wording` (1: the file's own)."""

    conversation: Conversation
    turn: Turn
    number: int
    question: str
    wording: int = 1


@dataclass(frozen=True, eq=False)
class Scored:
    """A case with the union of the masks that were drawn, [H, W] bool."""

    case: Case
    mask: Mask


class Scorer:
    """Scores replies; `knowledge` says where structures lie and which reasons are true of them."""

    def __init__(self, knowledge: KnowledgeBase) -> None:
        self.reasons = KnownReasons(knowledge)
        self._held_out = knowledge.held_out_ids

    def score(
        self, asked: Asked, reply: Reply, scene: Scene, present: Mapping[str, Target], mask: str = ""
    ) -> Scored:
        """Compare one reply with the truth; `present` are the image's known targets by label, `mask` where the drawn mask is
        kept."""
        c, turn = asked.conversation, asked.turn
        nothing: Mask = np.zeros(scene.shape, dtype=bool)
        truths = {t.label: scene.mask(t) for t in turn.targets}
        predicted: Mask = np.any([nothing, *(f.mask for f in reply.findings)], axis=0)
        truth: Mask = np.any([nothing, *truths.values()], axis=0)
        both, union = intersection_and_union(predicted, truth)
        confidences = [f.confidence for f in reply.findings]
        reference = plain(turn.answer)
        said = _as_generated(reply)
        case = Case(
            conversation=c.id,
            dataset=c.dataset,
            modality=c.modality,
            patient_id=c.patient_id,
            image=c.image,
            slice=f"{c.slice.axis}:{c.slice.index}" if c.slice else "",
            kind=turn.kind,
            turn=asked.number,
            target=" + ".join([t.label for t in turn.targets] or list(turn.absent)),
            fact=turn.fact or "",
            answer=reply.text,
            emitted=len(reply.findings) + len(reply.undrawn),
            expected=len(turn.targets),
            empty=not predicted.any(),
            dice=1.0 if union == 0 else 2.0 * both / (both + union),
            iou=1.0 if union == 0 else both / union,
            confidence=float(np.mean(confidences)) if confidences else 0.0,
            named=sorted(f.phrase for f in reply.findings) == sorted(t.label for t in turn.targets),
            chose=_chose(predicted, turn, present, scene),
            wording=asked.wording,
            question=asked.question,
            reference=reference,
            held_out=turn.fact in self._held_out,
            drawn=len(reply.findings),
            intersection=both,
            union=union,
            matched=_matched(reply.findings, truths),
            token_f1=token_f1(said, reference),
            rouge_l=rouge_l(said, reference),
            bleu=bleu(said, reference),
            mask=mask if predicted.any() else "",
            measured=_measured(turn, reply, truths),
            listed=_listed(reply, truths) if turn.kind == "all" and truths else None,
            **self._single(asked, reply, predicted, truth, scene),
        )
        return Scored(case, predicted)

    def _single(
        self, asked: Asked, reply: Reply, predicted: Mask, truth: Mask, scene: Scene
    ) -> dict[str, Any]:
        """What can be said of a question about one present target only: outlines, places, the reason."""
        turn = asked.turn
        if len(turn.targets) != 1:
            return {}
        surface = surface_scores(predicted, truth, scene.spacing_mm)
        found: dict[str, Any] = {"nsd": surface.nsd, "hd95": surface.hd95, "unit": surface.unit}
        if len(reply.findings) != 1:
            return found
        phrase = reply.findings[0].phrase
        region = self.reasons.region(phrase)
        said = stated_directions(reply.text, phrase, asked.conversation.modality, region)
        return found | {
            "places_truth": share_confirmed(said, truth),
            "places_drawn": share_confirmed(said, predicted),
            "reason": self.reasons.holds(_as_generated(reply), turn.targets[0].label, phrase),
        }


def _as_generated(reply: Reply) -> str:
    """The answer without the sentence that was measured on the masks."""
    return reply.text.replace(reply.measured.text, "").strip() if reply.measured else reply.text


def _measured(turn: Turn, reply: Reply, truths: Mapping[str, Mask]) -> bool | None:
    """Whether the answer measures what was asked for and states what the true masks say; None where nothing is to be measured."""
    if turn.kind not in {"comparison", "count", "side"} or not truths or turn.absent:
        return None
    said = reply.measured
    if said is None or said.kind != turn.kind or {f.label for f in reply.findings} != set(truths):
        return False
    if turn.kind == "comparison":
        return said.value == larger({name: int(np.count_nonzero(mask)) for name, mask in truths.items()})
    (mask,) = truths.values()
    if turn.kind == "side":
        return said.value == side(mask)
    number = count(mask)
    return abs(int(said.value) - number) <= (0 if number <= FEW else ROUGHLY * number)


def _listed(reply: Reply, truths: Mapping[str, Mask]) -> float:
    named = {finding.label for finding in reply.findings}
    return 2.0 * len(named & truths.keys()) / (len(named) + len(truths))


def _chose(predicted: Mask, turn: Turn, present: Mapping[str, Target], scene: Scene) -> bool | None:
    """Target choice among the image's targets that share nothing with the one asked for; None where there is no other."""
    if len(turn.targets) != 1:
        return None
    target = turn.targets[0]

    def apart(other: Target) -> bool:
        if other.mask == target.mask:
            return not set(other.value) & set(target.value)
        return not (scene.mask(other) & scene.mask(target)).any()

    others = {label: t for label, t in present.items() if label != target.label and apart(t)}
    return scene.chose(predicted, target.label, {**others, target.label: target}) if others else None


def _matched(findings: Sequence[Finding], truths: Mapping[str, Mask]) -> float | None:
    """Mean over the targets of the Dice of the first finding with the target's label, 0 without one; None without targets."""
    if not truths:
        return None
    by_label: dict[str, Mask] = {}
    for finding in findings:
        by_label.setdefault(finding.phrase, finding.mask)
    return float(
        np.mean([dice(by_label[name], mask) if name in by_label else 0.0 for name, mask in truths.items()])
    )
