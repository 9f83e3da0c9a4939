"""Whether a written sentence may be kept: no name given away, one target only, sides that agree with the mask, right length.

`candidate_problems` applies the checks of whole files (`medsegr.qa.checks`) to a conversation, and these on top. An empty
list means that it may be kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from medsegr.qa.annotate.cases import Case
from medsegr.qa.annotate.mask_facts import MIRRORED, Frame
from medsegr.qa.annotate.sides import SIDE, name_pattern, side_problems
from medsegr.qa.checks import check_conversation
from medsegr.qa.facts import Concept, KnowledgeBase
from medsegr.qa.schema import Conversation, Turn

DESCRIPTION_WORDS = (4, 30)
QUESTION_WORDS = (3, 40)
ANSWER_WORDS = (8, 40)
SAYS_FACT = 0.75  # a text says a fact that has this share of its content words in it
_MARKUP = re.compile(r"</?p>|\[SEG\]")
_LEVEL = re.compile(r"\b(?:upper|lower|top|bottom|maxill\w*|mandib\w*)\b", re.IGNORECASE)
_REFERS_BACK = re.compile(
    r"\b(?:it|its|they|their|them|that|this|these|those|mask|outlined?|contour|region|area|same|earlier|before)\b",
    re.IGNORECASE,
)
_CONTENT = re.compile(r"[a-z]{4,}|\d+|\b(?:one|two|six|ten)\b")
_COMMON = (
    "about after along also among been before being between from have here into image lies more most near only other over "
    "part seen shown some structure structures such than that their them then there these they this those through under "
    "upon what when where which while with within your"
)
_STOP_WORDS = frozenset(_COMMON.split())


@dataclass(frozen=True)
class Wording:
    """The checks with what they need to know; `root`: the folder that the paths of the file are relative to."""

    knowledge: KnowledgeBase
    root: Path

    @cached_property
    def _sided_names(self) -> re.Pattern[str]:
        names = (word for concept in self.knowledge.concepts.values() for word in concept.give_away)
        return name_pattern(word for word in names if SIDE.search(word))

    def description_problems(self, text: str, case: Case) -> list[str]:
        """Problems of a description by itself."""
        return [
            *_length_problems("description", text, DESCRIPTION_WORDS),
            *_markup_problems("description", text),
            *self._implicit_problems(text, case),
            *self._sides(text, case),
        ]

    def candidate_problems(self, conversation: Conversation, case: Case) -> list[str]:
        """Problems of a conversation about the case's target."""
        problems = list(check_conversation(conversation, self.root, self.knowledge))
        for number, turn in enumerate(conversation.turns, start=1):
            found = self._turn_problems(turn, case, first=number == 1)
            problems += [f"turn {number}: {problem}" for problem in found]
        return problems

    def _turn_problems(self, turn: Turn, case: Case, first: bool) -> list[str]:
        problems = [
            *_length_problems("question", turn.question, QUESTION_WORDS),
            *_length_problems("answer", _MARKUP.sub(" ", turn.answer), ANSWER_WORDS),
            *_markup_problems("question", turn.question),
            *self._sides(turn.question, case),
            *self._sides(turn.answer, case),
            *self._held_out(turn.answer, case),
        ]
        if turn.kind == "implicit":
            return [*problems, *self._implicit_problems(turn.question, case, alone=first)]
        return [*problems, *self._held_out(turn.question, case), *self._others_named(turn.question, case)]

    def _implicit_problems(self, text: str, case: Case, alone: bool = True) -> list[str]:
        """Problems of a text that must point at the target without naming it; `alone`: nothing before it points there."""
        word = self.knowledge[case.facts.name].leak(text)
        problems = [f"gives '{case.facts.name}' away with '{word}'"] if word else []
        problems += [*self._others_named(text, case), *self._held_out(text, case)]
        return problems + (self._fits_others(text, case) if alone else [])

    def _others_named(self, text: str, case: Case) -> list[str]:
        """Other targets that a text speaks of; the whole that the target is a part of may be named."""
        text = name_pattern(self.knowledge[case.facts.name].give_away).sub(" ", text)
        others = (name for name in case.facts.also_present if name not in case.facts.part_of)
        found = ((name, self.knowledge[name].leak(text)) for name in others)
        return [f"names '{name}', which is in the image too, with '{word}'" for name, word in found if word]

    def _fits_others(self, text: str, case: Case) -> list[str]:
        """A known fact of another structure of the region, or nothing that tells the target from its twin."""
        me = self.knowledge[case.facts.name]
        mine = says(text, me)
        rivals = [
            other
            for other in self.knowledge.concepts.values()
            if other.name != me.name and other.region == me.region
        ]
        for other in rivals:
            theirs = says(text, other)
            if theirs >= SAYS_FACT and theirs >= mine:
                return [f"fits '{other.name}' as well: it says what is known of that"]
        if mine >= SAYS_FACT:
            return []
        return [
            f"fits '{twin}' as well, which is in the image: it does not say {what}"
            for twin, what, words in _twins(case)
            if not words.search(text)
        ]

    def _held_out(self, text: str, case: Case) -> list[str]:
        if not case.training:
            return []
        me = self.knowledge[case.facts.name]
        said = content_words(_MARKUP.sub(" ", text))
        return [
            f"says the held-out fact '{fact.id}', but the split is train"
            for fact in me.held_out_facts
            if _share(said, fact.text) >= SAYS_FACT
        ]

    def _sides(self, text: str, case: Case) -> list[str]:
        return side_problems(text, case.facts, self._sided_names, case.centres)


def follow_up_problems(question: str) -> list[str]:
    """A follow-up must speak of the earlier mask."""
    return [] if _REFERS_BACK.search(question) else ["the follow-up does not refer to the earlier mask"]


def says(text: str, concept: Concept) -> float:
    """Largest share in [0, 1] of the content words of one of the concept's facts that a text contains."""
    said = content_words(_MARKUP.sub(" ", text))
    return max((_share(said, fact.text) for fact in concept.facts), default=0.0)


def content_words(text: str) -> frozenset[str]:
    """Numbers, and words of four letters and more without the commonest, in lower case and without a plural s."""
    words = (word.rstrip("s") for word in _CONTENT.findall(text.lower()))
    return frozenset(word for word in words if word not in _STOP_WORDS)


def _share(said: frozenset[str], fact: str) -> float:
    """Share of a fact's content words among those said; 0 for a fact of fewer than three."""
    words = content_words(fact)
    return len(words & said) / len(words) if len(words) >= 3 else 0.0


def _twins(case: Case) -> Iterable[tuple[str, str, re.Pattern[str]]]:
    """Present targets whose name differs from the target's by a side or a level, with what tells them apart."""
    swaps = [({"upper": "lower", "lower": "upper"}, "which level", _LEVEL)]
    if case.facts.frame is Frame.PATIENT:
        swaps.append((MIRRORED, "which side", SIDE))
    for swap, what, words in swaps:
        twin = " ".join(swap.get(word, word) for word in case.facts.name.split())
        if twin in case.facts.also_present:
            yield twin, what, words


def _length_problems(what: str, text: str, limits: tuple[int, int]) -> list[str]:
    number = sum(any(map(str.isalnum, word)) for word in text.split())
    if limits[0] <= number <= limits[1]:
        return []
    return [f"the {what} has {number} words; expected {limits[0]} to {limits[1]}"]


def _markup_problems(what: str, text: str) -> list[str]:
    return [f"the {what} holds markup; expected plain words"] if re.search(r"[<>\[\]{}]", text) else []
