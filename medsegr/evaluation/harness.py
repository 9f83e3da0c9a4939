"""Evaluation by free generation: the model must write `[SEG]` itself; history in multi-turn is what it said before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from medsegr.evaluation.case import Case
from medsegr.evaluation.scoring import Asked, Scored, Scorer
from medsegr.evaluation.truth import Scene
from medsegr.predictor import Predictor
from medsegr.qa.facts import load_knowledge
from medsegr.qa.schema import Conversation, Slice, Target

Rewordings = Mapping[str, Sequence[str]]
"""Conversation id to further wordings of its first question."""
PictureKey = tuple[str, Slice | None]


def answered(
    predictor: Predictor,
    conversations: Sequence[Conversation],
    root: Path,
    scorer: Scorer,
    skip: int = 0,
    rewordings: Rewordings | None = None,
) -> Iterator[list[Scored]]:
    """Answer and score one conversation after the other, all its turns and then the rewordings of its first question.

    root: the folder that paths are relative to. skip: so many conversations from the start were answered before; they still
    tell which targets an image has. Conversations of one image should follow each other. Masks are named by the
    conversation's place in the list.
    """
    present: dict[PictureKey, dict[str, Target]] = {}
    for c in conversations:
        known = present.setdefault((c.image, c.slice), {})
        known.update({t.label: t for turn in c.turns for t in turn.targets})
    current: tuple[PictureKey, Scene] | None = None
    for place, c in enumerate(conversations[skip:], start=skip):
        picture = (c.image, c.slice)
        if current is None or current[0] != picture:
            current = picture, Scene(c, root)
            predictor.set_image(current[1].picture, c.modality)
        done: list[Scored] = []
        for asked, history in _questions(c, (rewordings or {}).get(c.id, ()), done):
            reply = predictor.ask(asked.question, history)
            mask = f"masks/{place:06d}-{len(done)}.png"
            done.append(scorer.score(asked, reply, current[1], present[picture], mask))
        yield done


def evaluate(
    predictor: Predictor,
    conversations: Sequence[Conversation],
    root: Path,
    on_case: Callable[[Case], None] | None = None,
) -> list[Case]:
    """All cases at once, in memory, for a few conversations; `on_case` sees each as it comes."""
    cases: list[Case] = []
    for done in answered(predictor, conversations, root, Scorer(load_knowledge())):
        for scored in done:
            cases.append(scored.case)
            if on_case:
                on_case(scored.case)
    return cases


def _questions(
    c: Conversation, rewordings: Sequence[str], done: Sequence[Scored]
) -> Iterator[tuple[Asked, list[tuple[str, str]]]]:
    """Each question with the history that precedes it; `done` grows as they are answered."""
    for number, turn in enumerate(c.turns, start=1):
        yield Asked(c, turn, number, turn.question), [(s.case.question, s.case.answer) for s in done]
    for wording, question in enumerate(rewordings, start=2):
        yield Asked(c, c.turns[0], 1, question, wording), []
