"""What one physician said about one conversation, as a frozen record that goes to a line of JSON and back."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from medsegr.errors import MedSegRError, QAFileError
from medsegr.qa.schema import Conversation

MAX_NAME = 60


class ReviewError(MedSegRError):
    """A verdict, an edit or a reviewer's name cannot be used."""


class Verdict(StrEnum):
    """What a physician may say about a conversation."""

    ACCEPT = "accept"
    EDIT = "edit"
    REJECT = "reject"


@dataclass(frozen=True)
class TurnText:
    """The part of a turn that a physician may change. `answer` has its markup: `<p>liver</p> [SEG]`."""

    question: str
    answer: str


@dataclass(frozen=True)
class Entry:
    """One verdict. `time`: UTC, ISO 8601. `before`: the turns as the reviewer saw them; `after`: what an edit
    made of them, else None. `blind`: no other reviewer's verdict had been shown when this one was given."""

    time: str
    reviewer: str
    id: str
    verdict: Verdict
    before: tuple[TurnText, ...]
    after: tuple[TurnText, ...] | None = None
    note: str | None = None
    blind: bool = True

    def fits(self, texts: tuple[TurnText, ...]) -> bool:
        """Whether the entry is about `texts`: as they were seen, or as its edit left them."""
        return texts in (self.before, self.after)

    def to_json(self) -> dict[str, Any]:
        """The entry as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: object) -> Entry:
        """The entry of a decoded line; raises `QAFileError` naming the field that is wrong."""
        if not isinstance(record, Mapping):
            raise QAFileError(f"a review is {type(record).__name__}; expected a JSON object.")
        verdict = record.get("verdict")
        if verdict not in list(Verdict):
            raise QAFileError(f"'verdict' is {verdict!r}; expected one of {', '.join(Verdict)}.")
        after, note = record.get("after"), record.get("note")
        if (after is None) == (verdict == Verdict.EDIT):
            raise QAFileError(
                f"'after' is {after!r} for the verdict {verdict}; expected turns for an edit, else null."
            )
        if note is not None and not isinstance(note, str):
            raise QAFileError(f"'note' is {note!r}; expected text or null.")
        return cls(
            time=_text(record, "time"),
            reviewer=_text(record, "reviewer"),
            id=_text(record, "id"),
            verdict=Verdict(verdict),
            before=_texts(record.get("before"), "before"),
            after=None if after is None else _texts(after, "after"),
            note=note,
            blind=record.get("blind", True) is True,
        )


def utc_now() -> str:
    """The time of an entry: UTC to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def texts_of(conversation: Conversation) -> tuple[TurnText, ...]:
    """The turns of a conversation without their targets."""
    return tuple(TurnText(turn.question, turn.answer) for turn in conversation.turns)


def with_texts(conversation: Conversation, texts: tuple[TurnText, ...]) -> Conversation:
    """The conversation with other questions and answers; raises `ReviewError` if their number differs."""
    if len(texts) != len(conversation.turns):
        raise ReviewError(f"The edit has {len(texts)} turns; the conversation has {len(conversation.turns)}.")
    turns = zip(conversation.turns, texts, strict=True)
    return replace(
        conversation,
        turns=tuple(replace(turn, question=text.question, answer=text.answer) for turn, text in turns),
    )


def clean_name(name: str) -> str:
    """A reviewer's name in one spelling: composed letters, single spaces; raises `ReviewError` if none is left."""
    cleaned = " ".join(unicodedata.normalize("NFC", name).split())
    if not cleaned or len(cleaned) > MAX_NAME or not cleaned.isprintable():
        raise ReviewError(f"A reviewer's name needs 1 to {MAX_NAME} printable characters.")
    return cleaned


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise QAFileError(f"'{key}' is {value!r}; expected text.")
    return value


def _texts(value: object, key: str) -> tuple[TurnText, ...]:
    rows = value if isinstance(value, list) else []
    found = [
        TurnText(row["question"], row["answer"])
        for row in rows
        if isinstance(row, Mapping)
        and isinstance(row.get("question"), str)
        and isinstance(row.get("answer"), str)
    ]
    if not found or len(found) != len(rows):
        raise QAFileError(
            f"'{key}' is {str(value)[:80]}; expected a list of turns, each with question and answer."
        )
    return tuple(found)
