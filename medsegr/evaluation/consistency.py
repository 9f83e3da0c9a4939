"""Paraphrase consistency: do different words for the same question give the same mask? And the different words, if asked for."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medsegr.evaluation.averages import mean_pairwise
from medsegr.evaluation.case import Case
from medsegr.evaluation.overlap import Mask, dice
from medsegr.qa import phrasing
from medsegr.qa.facts import Concept, KnowledgeBase
from medsegr.qa.schema import Conversation, Turn

TRIES = 60


@dataclass(frozen=True)
class Agreement:
    """Mean pairwise Dice of the masks of one question in `wordings` different wordings."""

    patient: tuple[str, str]
    wordings: int
    dice: float


def agreements(cases: Sequence[Case], read_mask: Callable[[str], Mask]) -> list[Agreement]:
    """One entry for every first question about something present that was put in several wordings: the same image (or slice),
    targets and fact (or none). `read_mask` gives the mask of a case's `mask`; nothing drawn agrees with nothing drawn only."""
    groups: dict[tuple[str, ...], dict[str, Case]] = {}
    for c in cases:
        if c.turn == 1 and c.expected:
            same_question = (c.dataset, c.image, c.slice, c.kind, c.target, c.fact)
            groups.setdefault(same_question, {}).setdefault(c.question, c)
    found = []
    for same in groups.values():
        if len(same) > 1:
            masks = [read_mask(c.mask) if c.mask else None for c in same.values()]
            found.append(
                Agreement(next(iter(same.values())).patient, len(masks), mean_pairwise(masks, _agree))
            )
    return found


def _agree(one: Mask | None, other: Mask | None) -> float:
    if one is None or other is None:
        return float(one is other)
    return dice(one, other)


def reword(conversation: Conversation, knowledge: KnowledgeBase, count: int, seed: int) -> tuple[str, ...]:
    """Up to `count` further wordings of a conversation's first question, by the builder's templates; the same seed gives the
    same.

    Empty unless the question asks for one structure that is there and that the knowledge base describes.
    """
    turn = conversation.turns[0]
    if (
        turn.kind not in {"explicit", "implicit"}
        or len(turn.targets) != 1
        or turn.targets[0].label not in knowledge
    ):
        return ()
    concept = knowledge[turn.targets[0].label]
    rng = random.Random(f"{seed}:{conversation.id}")
    found: dict[str, None] = {}
    for _ in range(TRIES):
        if len(found) == count:
            break
        question = _question(rng, turn, concept, conversation.modality)
        if question and question != turn.question:
            found[question] = None
    return tuple(found)


def _question(rng: random.Random, turn: Turn, concept: Concept, modality: str) -> str | None:
    """One wording, None for a fact that the knowledge base no longer has."""
    if turn.kind == "explicit":
        return phrasing.explicit_question(rng, concept, phrasing.study_name(concept.region, modality))
    fact = next((f.text for f in concept.facts if f.id == turn.fact), None)
    return phrasing.implicit_question(rng, concept, fact) if fact else None
