"""What a clinician says of a structure in a few words: other names, where it lies, facts. Checked and put into the form that
questions and answers are made of; it is about the structure and never about one image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypedDict

from medsegr.qa.facts import plain_concept
from medsegr.rounds.errors import StoreError

MAX_NAME = 64
MAX_TEXT = 200
MAX_TEXTS = 10
"""So many names, questions or facts a label may have."""
MARKUP = ("<pad>", "</s>", "<q>", "<a>", "[SEG]", "<p>", "</p>")
"""The special tokens of `medsegr.model.tokens`, which is not imported here, since it loads a library that takes seconds."""
FIELDS = ("names", "location", "questions", "facts")
SUBJECT = re.compile(r"(?:(?:it|they|this structure|the structure)\s+)", re.IGNORECASE)
LIES = re.compile(r"(?:lies?|is|are)\s+", re.IGNORECASE)


class Knowledge(TypedDict):
    """`names`: synonyms. `location` completes "The iris lies …". Each of `facts` completes "Which structure here …?". `questions`
    are kept, and nothing is made of them."""

    names: list[str]
    location: str
    questions: list[str]
    facts: list[str]


def knowledge_of(entry: Mapping[str, Any]) -> Knowledge:
    """A stored entry with all its fields."""
    return Knowledge(
        names=list(entry.get("names", ())),
        location=str(entry.get("location", "")),
        questions=list(entry.get("questions", ())),
        facts=list(entry.get("facts", ())),
    )


def checked_knowledge(entry: Mapping[str, Any], name: str) -> Knowledge:
    """What is said of the structure `name`, tidied: {names, location, questions, facts}, any of them missing. "It drains the
    humour." becomes "drains the humour"; what is said twice is kept once, and the name itself is no synonym.

    Raises `StoreError`, which does not quote what was said: lists of at most 10 texts of at most 200 characters (names: 64) are
    expected, without the markup of answers, and facts without the names.
    """
    if unknown := sorted(set(entry) - set(FIELDS)):
        raise StoreError(f"A label's knowledge has the field `{unknown[0]}`; {', '.join(FIELDS)} are known.")
    names = [word for word in _texts(entry, "names", MAX_NAME) if word.casefold() != name.casefold()]
    location = entry.get("location", "")
    if not isinstance(location, str):
        raise StoreError("`location` of a label's knowledge must be a text.")
    facts = [_phrase(text, "facts") for text in _texts(entry, "facts", MAX_TEXT)]
    concept = plain_concept(name, names)
    if any(concept.leak(fact) for fact in facts):
        raise StoreError(
            "`facts` must describe the structure without its name or a synonym, since questions are made of them."
        )
    return Knowledge(
        names=names,
        location=_place(location),
        questions=_texts(entry, "questions", MAX_TEXT),
        facts=_once(facts),
    )


def markup_problem(text: str, what: str = "A label") -> str | None:
    """Why a text cannot be taught, in one sentence: it holds a token that answers are marked up with, in whatever case; None
    if it does not.
    """
    found = next((token for token in MARKUP if token.casefold() in text.casefold()), None)
    return f"{what} must not hold `{found}`, which marks up the model's answers." if found else None


def _texts(entry: Mapping[str, Any], field: str, limit: int) -> list[str]:
    texts = entry.get(field, [])
    if not isinstance(texts, list | tuple) or not all(
        isinstance(text, str) and text.strip() for text in texts
    ):
        raise StoreError(f"`{field}` of a label's knowledge must be a list of texts.")
    if len(texts) > MAX_TEXTS:
        raise StoreError(f"`{field}` has {len(texts)} texts; at most {MAX_TEXTS} are accepted.")
    return _once([_tidy(text, field, limit) for text in texts])


def _tidy(text: str, field: str, limit: int) -> str:
    text = " ".join(text.split())
    if len(text) > limit or not text.isprintable():
        raise StoreError(f"A text in `{field}` must have 1 to {limit} printable characters.")
    if problem := markup_problem(text, f"A text in `{field}`"):
        raise StoreError(problem)
    return text


def _once(texts: list[str]) -> list[str]:
    return list({text.casefold(): text for text in reversed(texts)}.values())[::-1]


def _phrase(text: str, field: str) -> str:
    """A sentence without its subject, capital and full stop; the capital of an abbreviation ("MRI") or a single letter stays."""
    text = SUBJECT.sub("", text, count=1) if SUBJECT.match(text) else text
    text = text.rstrip(" .?!;,")
    if not text:
        raise StoreError(f'A text in `{field}` must be a few words, such as "drains the aqueous humour".')
    return text[0].lower() + text[1:] if len(text) > 1 and text[1].islower() else text


def _place(text: str) -> str:
    if not text.strip():
        return ""
    text = _phrase(_tidy(text, "location", MAX_TEXT), "location")
    return LIES.sub("", text, count=1) if LIES.match(text) else text
