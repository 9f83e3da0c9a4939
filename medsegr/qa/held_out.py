"""How far held-out facts are from what training says: the words each shares with its nearest training fact.

Pure functions of the knowledge base, for `medsegr qa held-out` and the tests; nothing here reads or writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from medsegr.qa.facts import Concept, Fact, KnowledgeBase

CAP = 0.5
"""A held-out fact may share at most this part of its content words with any one training fact."""

STOP_WORDS = frozenset(
    {
        "a", "an", "and", "are", "as", "at", "be", "been", "both", "but", "by", "can", "do", "does",
        "for", "from", "has", "have", "in", "into", "is", "it", "its", "may", "more", "most",
        "near", "no", "not", "of", "off", "often", "on", "one", "or", "other", "out", "over", "so",
        "some", "such", "than", "that", "the", "their", "them", "there", "these", "they", "this",
        "those", "to", "two", "under", "up", "upon", "very", "when", "where", "which", "while",
        "who", "with", "within", "without",
    }
)  # fmt: skip
POSITION_WORDS = frozenset({"left", "right", "upper", "lower", "quadrant", "patient"})
"""Words that only say which of several like structures is meant; every fact about it needs them."""


@dataclass(frozen=True)
class HeldOutFact:
    """A held-out fact, the training fact nearest to it (None if there are none), and their overlap, 0 to 1."""

    concept: Concept
    fact: Fact
    nearest: Fact | None
    overlap: float


def content(text: str) -> frozenset[str]:
    """Words that carry meaning, in lower case, a plural s cut off; stop words and position words left out."""
    words = re.findall(r"[^\W\d_]+", text.lower().replace("'s", ""))
    singular = (w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in words)
    return frozenset(singular) - STOP_WORDS - POSITION_WORDS


def overlap(held_out: str, training: str) -> float:
    """Share of a held-out fact's content words that occur in a training fact; 0 if it has no such words."""
    return _share(content(held_out), content(training))


def held_out_facts(knowledge: KnowledgeBase) -> tuple[HeldOutFact, ...]:
    """Every held-out fact in file order, each compared with the training facts of the whole knowledge base;
    of equally near ones, the first."""
    training = [(fact, content(fact.text)) for c in knowledge.concepts.values() for fact in c.training_facts]
    found = []
    for concept in knowledge.concepts.values():
        for fact in concept.held_out_facts:
            words = content(fact.text)
            nearest, known = max(training, key=lambda t: _share(words, t[1]), default=(None, frozenset()))
            found.append(HeldOutFact(concept, fact, nearest, _share(words, known)))
    return tuple(found)


def markdown(facts: Iterable[HeldOutFact]) -> str:
    """The list as a Markdown document: one row for each fact, with what it shares with its nearest training
    fact."""
    rows = [
        f"| {held.concept.name} | {held.fact.id} | {_cell(held.fact.text)} | {held.overlap:.2f} "
        f"| {held.nearest.id if held.nearest else ''} |"
        for held in facts
    ]
    return "\n".join(
        (
            "# Held-out facts",
            "",
            f"Training never uses these {len(rows)} facts; they measure whether a description is understood "
            "that was never trained on. Overlap is the share of a fact's content words that occur in the "
            f"training fact nearest to it, in the whole knowledge base; at most {CAP} is allowed. Words that "
            f"only give a position ({', '.join(sorted(POSITION_WORDS))}) do not count.",
            "",
            "Written by `medsegr qa held-out --out docs/held-out-facts.md`.",
            "",
            "| concept | fact | text | overlap | nearest training fact |",
            "| --- | --- | --- | ---: | --- |",
            *rows,
            "",
        )
    )


def _share(words: frozenset[str], known: frozenset[str]) -> float:
    return len(words & known) / len(words) if words else 0.0


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
