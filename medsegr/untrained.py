"""Tells "I was not trained for this" from "not present": which structures a question asks for by a name that the checkpoint's
targets lack, whether the knowledge base, SNOMED CT or nobody has the name.

Only what is *asked for* counts, not what a description mentions ("the organ beside the duodenum"). A name counts as unknown only
when it is no misspelling of a known one and no phrase of everyday words, which may describe a target. The predictor asks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from medsegr.anatomy_names import everyday_words, phrase_key, snomed_names
from medsegr.generic_words import BROAD, GENERIC, HEADS, MODIFIERS, NAMES, NOUNS, POINTERS, STUDIES, VERBS
from medsegr.noun_phrases import NounPhrase, asked_phrases
from medsegr.qa.facts import Concept

CLOSE = 0.82
"""Similarity (difflib's ratio) from which on an unknown word is a misspelling: "livr" is 0.89 of "liver", "esofagus" 0.82."""
SHORTEST_MISSPELT = 4


@dataclass(frozen=True)
class AskedNames:
    """Names that a question asks for, in order and each once: as the knowledge base writes them, or else as the question does."""

    trained: tuple[str, ...]
    untrained: tuple[str, ...]


Found = tuple[str, bool]
"""A name and whether it is a trained target's."""
Key = tuple[str, ...]


class NameFinder:
    """Finds what questions ask for. `targets` are the names that the checkpoint was trained on."""

    def __init__(self, concepts: Iterable[Concept], targets: Iterable[str]) -> None:
        known = frozenset(targets)
        self._owner: dict[Key, Found] = {}
        self._written: dict[str, Found] = {}
        self._own_words: dict[str, frozenset[str]] = {}
        for concept in concepts:
            trained = concept.name in known
            for word in concept.give_away:
                for table, key in ((self._owner, phrase_key(word)), (self._written, word.lower())):
                    if trained or key not in table:  # a word that also means a target is known
                        table[key] = (concept.name, trained)  # type: ignore[index]
                if trained:
                    for key in phrase_key(word):
                        self._own_words[key] = self._own_words.get(key, frozenset()) | frozenset(
                            k for w in concept.give_away for k in phrase_key(w)
                        )
        self._heads = frozenset(key[-1] for key, owner in self._owner.items() if owner[1])
        self._spelt = sorted({word for key in self._owner for word in key})

    def asked(self, question: str) -> AskedNames:
        """What `question` asks for by name; both are empty for a description, a greeting or an empty question."""
        found: dict[str, bool] = {}
        for phrase in asked_phrases(question):
            owner = self._name(phrase)
            if owner:
                found.setdefault(*owner)
        return AskedNames(
            tuple(name for name, trained in found.items() if trained),
            tuple(name for name, trained in found.items() if not trained),
        )

    def lists(self, name: str) -> bool:
        """Whether a dictionary has `name`: the knowledge base or SNOMED CT."""
        key = phrase_key(name)
        return key in self._owner or _is_name(key)

    def _name(self, phrase: NounPhrase) -> Found | None:
        """What a phrase names; None for a description or words that name nothing."""
        written = " ".join(phrase.words)
        if written.lower() in self._written:
            return self._written[written.lower()]
        words = [word for word in phrase_key(written) if not (word.endswith("ly") and len(word) > 5)]
        if words and words[-1] in STUDIES:
            return None
        if "of" in words:
            whole = self._whole(words, written)
            if whole:
                return whole
            place = words.index("of")
            before, after = words[:place], words[place + 1 :]
            words = after if all(w in GENERIC for w in before) else after + before
        words = [word for word in words if word != "of" and not word.isdigit()]
        return self._classify(words, phrase, written) or self._classify(
            [self._corrected(word) for word in words], phrase, written, last=True
        )

    def _classify(
        self, words: list[str], phrase: NounPhrase, written: str, last: bool = False
    ) -> Found | None:
        """`last`: misspellings are corrected by now, so a word that is still unknown is a name."""
        if not words or words[0] in VERBS - NOUNS:
            return None
        whole = self._whole(words, written)
        if whole or all(word in GENERIC for word in words):
            return whole
        pointing = words[-1] in POINTERS
        unknown = self._unknown(words, phrase, written) if last and not pointing else None
        if words[-1] in GENERIC and words[-1] not in BROAD:  # "the clavicle region", "the round shiny spot"
            while words and words[-1] in GENERIC:
                if (
                    pointing and words[-1] in MODIFIERS
                ):  # "the air-filled organs": what stands before it describes
                    return None
                words = words[:-1]
            return self._whole(words, written) or self._ends_in(words, written, last) or unknown
        if words[0] in NOUNS:  # "the organ storing bile"
            return None
        return (
            self._ends_in(words, written, last)
            or (None if phrase.exact else self._begins_with(words))
            or unknown
        )

    def _whole(self, words: list[str], written: str) -> Found | None:
        """The owner of all the words, or of all but generic ones before them."""
        for start, _ in enumerate(words):
            if start and words[start - 1] not in MODIFIERS | NOUNS:
                return None
            key = tuple(words[start:])
            if key in self._owner:
                return self._owner[key]
            if all(word in GENERIC for word in key):
                return None
            if _is_name(key):
                return written, False
        return None

    def _ends_in(self, words: list[str], written: str, corrected: bool) -> Found | None:
        """The owner of the last words: an inflamed pancreas is a pancreas, a facial nerve is not "the nerve". Where a word had to
        be `corrected`, the words before it must be everyday ones: "crista galli" has nothing to do with "gall"."""
        for start in range(1, len(words)):
            key = tuple(words[start:])
            if key not in self._owner:
                continue
            name, trained = self._owner[key]
            broad = len(key) == 1 and key[0] in BROAD
            own = self._own_words.get(key[0], frozenset()) | MODIFIERS
            if trained and broad and not all(word in own for word in words[:start]):
                return written, False
            if corrected and any(self._strange(word) for word in words[:start]):
                return None
            return name, trained
        return None

    def _begins_with(self, words: list[str]) -> Found | None:
        """The owner of the first words, of as many as possible: "the liver enlarged", "the clavicles symmetric"."""
        for end in range(len(words) - 1, 0, -1):
            found = self._whole(words[:end], " ".join(words[:end]))
            if found:
                return found
        return None

    def _unknown(self, words: list[str], phrase: NounPhrase, written: str) -> Found | None:
        """A name that no dictionary has: one of its words is no everyday word and none that a target is described by."""
        if not phrase.sure:
            return None
        named = len(words) > 1 and words[-1] in HEADS - self._heads
        eponym = any(word.istitle() and len(word) > 2 for word in phrase.words)
        return (
            (written, False)
            if named
            or eponym
            or (words[-1] not in GENERIC and _is_name(words[-1:]))
            or any(map(self._strange, words))
            else None
        )

    def _strange(self, word: str) -> bool:
        """Whether a word is no everyday one."""
        return not (word.isdigit() or word in GENERIC or word in everyday_words())

    def _corrected(self, word: str) -> str:
        """A misspelt word as the knowledge base has it."""
        if (
            len(word) < SHORTEST_MISSPELT
            or word in GENERIC
            or word in everyday_words()
            or word in _snomed_words()
        ):
            return word
        near = difflib.get_close_matches(word, self._spelt, 1, CLOSE)
        if not near:
            return word
        alike = difflib.SequenceMatcher(None, near[0], word).ratio()
        rivals = difflib.get_close_matches(word, _snomed_words(), 1, CLOSE)
        rival = difflib.SequenceMatcher(None, rivals[0], word).ratio() if rivals else 0.0
        return near[0] if alike >= rival else rivals[0]


def _is_name(key: Sequence[str]) -> bool:
    """Whether these words are a name that the knowledge base need not have."""
    return tuple(key) in snomed_names() or (len(key) == 1 and key[0] in NAMES)


@lru_cache(maxsize=1)
def _snomed_words() -> frozenset[str]:
    return frozenset(word for name in snomed_names() for word in name)


def refusal_text(names: tuple[str, ...]) -> str:
    """The answer when everything that was asked for is untrained."""
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    return f"This model was not trained to outline {listed}, so it cannot say whether it is there."
