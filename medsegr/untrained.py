"""Tells "I was not trained for this" from "not present": which structures a question asks for by a name that the knowledge base
has and the checkpoint's targets lack.

Only what is *asked for* counts, not what a description mentions ("the organ beside the duodenum"). The predictor asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from medsegr.qa.facts import Concept

DETERMINERS = (
    r"(?:(?:the|a|an|any|all|both|some|of|left|right|whole|entire|visible|patient'?s|his|her|my|this)\s+)*"
)
REQUEST = (
    r"(?:outline|segment|show(?:\s+me)?|mark|find|delineate|highlight|locate|identify|contour|draw|label|trace|annotate|"
    r"point\s+(?:out|to)|(?:contours?|outlines?|masks?|segmentations?|borders?)\s+of|(?:where|what\s+about)\s+(?:is|are)|where's|"
    r"(?:is|are|was|were)(?:\s+there)?|(?:do|can)\s+you\s+(?:see|find)|look(?:ing)?\s+for|how\s+(?:big|large)\s+(?:is|are)|"
    r"(?:size|volume|area)\s+of)"
)
OPENING = r"^\s*(?:(?:and|now|next|only|just|what\s+about),?\s+)*"
AFTER = r"(?=\s*(?:[?.,;!:]|$|(?:in|on|here|visible|please|and|or|of|present|there|seen|from|at|with|alone|only|now)\b))"
DESCRIPTION = re.compile(r"(?<!\w)(?:that|which|whose|what|who)\s+(?!about)", re.IGNORECASE)
"""From such a word on a question describes: names in it are landmarks, not what is asked for."""
AND = r"\s*(?:,\s*(?:and\s+)?|(?:and|or|&)\s+)"


@dataclass(frozen=True)
class AskedNames:
    """Names that a question asks for, as the knowledge base writes them, in order and each once."""

    trained: tuple[str, ...]
    untrained: tuple[str, ...]


class NameFinder:
    """Finds what questions ask for. `targets` are the names that the checkpoint was trained on."""

    def __init__(self, concepts: Iterable[Concept], targets: Iterable[str]) -> None:
        known = frozenset(targets)
        self._owner: dict[str, tuple[str, bool]] = {}
        for concept in concepts:
            for word in concept.give_away:
                trained = concept.name in known
                if trained or word.lower() not in self._owner:  # a word that also means a target is known
                    self._owner[word.lower()] = (concept.name, trained)
        words = sorted(self._owner, key=len, reverse=True)
        name = rf"(?:{'|'.join(map(re.escape, words))})(?:e?s)?(?!\w){AFTER}"
        asked = rf"{DETERMINERS}{name}"
        self._name = re.compile(rf"(?<!\w){name}", re.IGNORECASE)
        self._request = re.compile(
            rf"(?:(?<!\w){REQUEST}\s+|{OPENING})(?P<names>{asked}(?:{AND}{asked})*)", re.IGNORECASE
        )

    def asked(self, question: str) -> AskedNames:
        """What `question` asks for by name; both are empty for a description, a greeting or an empty question."""
        found: dict[str, bool] = {}
        description = DESCRIPTION.search(question)
        plain = question[: description.start()] if description else question
        for request in self._request.finditer(plain):
            for match in self._name.finditer(request["names"]):
                owner = self._owner_of(match[0])
                if owner:
                    found.setdefault(*owner)
        return AskedNames(
            tuple(name for name, trained in found.items() if trained),
            tuple(name for name, trained in found.items() if not trained),
        )

    def _owner_of(self, word: str) -> tuple[str, bool] | None:
        lower = word.lower()
        return next(
            (
                self._owner[w]
                for w in (lower, lower.removesuffix("s"), lower.removesuffix("es"))
                if w in self._owner
            ),
            None,
        )


def refusal_text(names: tuple[str, ...]) -> str:
    """The answer when everything that was asked for is untrained."""
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    return f"This model was not trained to outline {listed}, so it cannot say whether it is there."
