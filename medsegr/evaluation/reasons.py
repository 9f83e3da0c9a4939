"""The reason that an answer gives, against the knowledge base: is it known to be true of the structure that was asked for?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from medsegr.evaluation.text import tokens
from medsegr.qa.facts import KnowledgeBase

MIN_WORDS = 3
"""Fewer words beside the name are no reason ("is outlined")."""
ALIKE = 0.6
"""From this token F1 on, words count as a statement of the knowledge base said otherwise."""


@dataclass(frozen=True)
class _Statement:
    concept: str
    text: str
    counts: Counter[str]


class KnownReasons:
    """Everything that the knowledge base says of each structure: where it lies, and every fact."""

    def __init__(self, knowledge: KnowledgeBase) -> None:
        self._knowledge = knowledge
        self._statements = [
            _Statement(concept.name, _spaced(words), Counter(words))
            for concept in knowledge.concepts.values()
            for text in (concept.location, *(fact.text for fact in concept.facts))
            if (words := tokens(text))
        ]

    def region(self, label: str) -> str | None:
        """Body region of a structure, None if it is unknown."""
        return self._knowledge[label].region if label in self._knowledge else None

    def holds(self, answer: str, label: str, phrase: str) -> bool | None:
        """Whether the reason in `answer`, which calls its structure `phrase`, is a statement about `label`.

        None: no reason was given, or `label` is unknown. A statement found word for word decides, the longest one first; else the
        most similar one, if it is similar enough. What the knowledge base says of no structure is not true of this one either.
        """
        if label not in self._knowledge:
            return None
        words, named = tokens(answer), Counter(tokens(f"the {phrase}"))
        rest = Counter(words) - named
        if rest.total() < MIN_WORDS:
            return None
        text = _spaced(words)
        exact = [s for s in self._statements if s.text in text]
        if exact:
            longest = max(len(s.text) for s in exact)
            return any(s.concept == label for s in exact if len(s.text) == longest)
        scored = [(_f1(rest, s.counts), s.concept) for s in self._statements]
        best = max(score for score, _ in scored)
        return best >= ALIKE and any(concept == label for score, concept in scored if score == best)


def _spaced(words: list[str]) -> str:
    """Words with a space before and after each, so that `in` finds whole words only."""
    return f" {' '.join(words)} "


def _f1(one: Counter[str], other: Counter[str]) -> float:
    return 2.0 * (one & other).total() / (one.total() + other.total())
