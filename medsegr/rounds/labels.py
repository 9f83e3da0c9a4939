"""The label list: the targets that ship, then what clinicians added, each under an id that never changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from medsegr.rounds.audit import append
from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.tables import LabelRow

MAX_NAME = 64
MARKUP = ("<pad>", "</s>", "<q>", "<a>", "[SEG]", "<p>", "</p>")
"""The special tokens of `medsegr.model.tokens`, which is not imported here, since it loads a library that takes seconds."""
KNOWLEDGE = ("names", "questions", "facts")
Knowledge = dict[str, list[str]]


@dataclass(frozen=True)
class Label:
    """A label that was added, detached from the database. `knowledge`: {names, questions, facts}, lists of text."""

    id: int
    name: str
    knowledge: Knowledge
    editor: str
    created: str


class LabelList:
    """`shipped` are the names of the targets that ship: ids 1..N. Names are compared without regard to case.

    Should later weights ship more targets than there were when labels were added, those whose ids are taken get the next
    free ones.
    """

    def __init__(self, database: Database, shipped: tuple[str, ...]) -> None:
        self.database, self.shipped = database, shipped
        taken = {label.id: label.name.casefold() for label in self.added()}
        for number, name in enumerate(shipped, start=1):
            if taken.get(number, name.casefold()) != name.casefold():
                self.add(name, {}, "shipped", known=False)

    def names(self) -> tuple[str, ...]:
        """Every name in the order of its id."""
        return tuple(self.ids())

    def ids(self) -> dict[str, int]:
        """Name -> id, in the order of ids."""
        with self.database.session() as session:
            return self._ids(session)

    def added(self) -> list[Label]:
        """The labels beyond those that ship, in the order of their ids."""
        with self.database.session() as session:
            rows = session.scalars(select(LabelRow).order_by(LabelRow.id))
            return [Label(row.id, row.name, row.knowledge, row.editor, row.created) for row in rows]

    def add(
        self,
        name: str,
        knowledge: dict[str, Any] | None = None,
        editor: str = "server",
        *,
        known: bool = True,
    ) -> int:
        """The id of `name`, which is added where it is new. Raises `StoreError` for a name or an entry that cannot be
        used. With `known` false a shipped target of this name does not count (see the class).
        """
        name = name.strip()
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise StoreError(f"A label must have 1 to {MAX_NAME} printable characters.")
        if problem := markup_problem(name):
            raise StoreError(problem)
        entry = checked_knowledge(knowledge or {})
        with self.database.writing() as session:
            rows = session.scalars(select(LabelRow)).all()
            ids = self._ids(session) if known else {row.name: row.id for row in rows}
            for existing, id_ in ids.items():
                if existing.casefold() == name.casefold():
                    return id_
            id_ = max([len(self.shipped), *(row.id for row in rows)]) + 1
            session.add(LabelRow(id=id_, name=name, knowledge=entry, editor=editor, created=now()))
            append(session, editor, "label", name, {"id": id_})
            return id_

    def _ids(self, session: Session) -> dict[str, int]:
        rows = session.scalars(select(LabelRow).order_by(LabelRow.id)).all()
        own = {row.name.casefold() for row in rows}
        ids = {name: n for n, name in enumerate(self.shipped, start=1) if name.casefold() not in own}
        ids |= {row.name: row.id for row in rows}
        return dict(sorted(ids.items(), key=lambda item: item[1]))


def markup_problem(name: str) -> str | None:
    """Why a label cannot be taught, in one sentence: it holds a token that answers are marked up with, in whatever case; None
    if it does not.
    """
    found = next((token for token in MARKUP if token.casefold() in name.casefold()), None)
    return f"A label must not hold `{found}`, which marks up the model's answers." if found else None


def checked_knowledge(knowledge: dict[str, Any]) -> Knowledge:
    """A knowledge-base entry {names, questions, facts}, each a list of text (missing: none); raises `StoreError`."""
    if unknown := sorted(set(knowledge) - set(KNOWLEDGE)):
        raise StoreError(
            f"A label's knowledge has the field `{unknown[0]}`; {', '.join(KNOWLEDGE)} are known."
        )
    entry = {field: knowledge.get(field, []) for field in KNOWLEDGE}
    for field, texts in entry.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise StoreError(f"`{field}` of a label's knowledge must be a list of texts.")
    return entry
