"""The label list: the targets that ship, then what clinicians added, each under an id that never changes. What clinicians say of
a label may change: the audit keeps who said what before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from medsegr.rounds.audit import append
from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.knowledge import MAX_NAME, Knowledge, checked_knowledge, knowledge_of
from medsegr.rounds.knowledge import markup_problem as markup_problem
from medsegr.rounds.tables import LabelRow

MAX_LABELS = 1000
"""Labels in all that clients may make; a model learns 255 at the most."""
SHIPPED = "shipped"
"""The editor of a shipped target that needed an id of its own."""
TAUGHT = "label_knowledge"
"""What the audit calls a change of what is said of a label."""


class LabelTaken(StoreError):
    """A name that means another structure already, or a label of which something else was said before."""


class UnknownLabel(StoreError):
    """No label has this id."""


@dataclass(frozen=True)
class Label:
    """A label that was added, detached from the database. `knowledge`: {names, location, questions, facts}."""

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
                self.add(name, {}, SHIPPED, known=False)

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
            return [_label(row) for row in session.scalars(select(LabelRow).order_by(LabelRow.id))]

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
        name = checked_name(name)
        entry = checked_knowledge(knowledge or {}, name)
        with self.database.writing() as session:
            rows = session.scalars(select(LabelRow)).all()
            ids = self._ids(session) if known else {row.name: row.id for row in rows}
            for existing, id_ in ids.items():
                if existing.casefold() == name.casefold():
                    return id_
            return self._insert(session, name, entry, editor)

    def teach(
        self,
        name: str,
        knowledge: Mapping[str, Any],
        editor: str,
        words: Mapping[str, str] | None = None,
    ) -> Label:
        """Add a label with what a clinician says of it, or say it of a label that was added without a word.

        `words`: case-folded names and synonyms of a knowledge base -> the structure that they mean there. Raises `LabelTaken`
        where the name or a synonym means another label, or something was said of the label already; `StoreError` for what
        cannot be used.
        """
        name = checked_name(name)
        entry = checked_knowledge(knowledge, name)
        with self.database.writing() as session:
            ids = {existing.casefold(): id_ for existing, id_ in self._ids(session).items()}
            self._check_free(session, name, (name, *entry["names"]), words or {})
            id_ = ids.get(name.casefold())
            if id_ is None:
                if len(ids) >= MAX_LABELS:
                    raise LabelTaken(f"The label list has {len(ids)} labels; no more can be added.")
                id_ = self._insert(session, name, entry, editor)
                return _label(self._row(session, id_))
            row = session.get(LabelRow, id_)
            if row is None or row.editor == SHIPPED or any(knowledge_of(row.knowledge).values()):
                raise LabelTaken(
                    f"This name is label {id_} already; `PUT /medsegr/labels/{id_}/knowledge` says something else of one "
                    "that was added here."
                )
            return self._tell(session, row, entry, editor)

    def tell(
        self, id_: int, knowledge: Mapping[str, Any], editor: str, words: Mapping[str, str] | None = None
    ) -> Label:
        """Put this in the place of what was said of a label; the audit keeps what it was. Raises `UnknownLabel`,
        `LabelTaken` for one that ships or a synonym that means another label, `StoreError` for what cannot be used.
        """
        with self.database.writing() as session:
            row = self._row(session, id_)
            entry = checked_knowledge(knowledge, row.name)
            self._check_free(session, row.name, tuple(entry["names"]), words or {})
            return self._tell(session, row, entry, editor)

    def _tell(self, session: Session, row: LabelRow, entry: Knowledge, editor: str) -> Label:
        before = knowledge_of(row.knowledge)
        entry = {**entry, "questions": entry["questions"] or before["questions"]}
        if entry != before:
            row.knowledge = {**entry}
            detail = {"id": row.id, "before": before, "knowledge": entry}
            append(session, editor, TAUGHT, row.name, detail)
        return _label(row)

    def _insert(self, session: Session, name: str, entry: Knowledge, editor: str) -> int:
        last = session.scalars(select(LabelRow.id).order_by(LabelRow.id.desc()).limit(1)).first() or 0
        id_ = max(len(self.shipped), last) + 1
        session.add(LabelRow(id=id_, name=name, knowledge={**entry}, editor=editor, created=now()))
        said = {"knowledge": entry} if any(entry.values()) else {}
        append(session, editor, "label", name, {"id": id_, **said})
        return id_

    def _row(self, session: Session, id_: int) -> LabelRow:
        """The row of a label that was added here."""
        row = session.get(LabelRow, id_) if 0 < id_ < 2**31 else None
        if row is not None and row.editor != SHIPPED:
            return row
        if id_ not in self._ids(session).values():
            raise UnknownLabel("No label has this id; `GET /medsegr/labels` lists those that exist.")
        raise LabelTaken("This label ships with the model; only those that were added here can be described.")

    def _check_free(
        self, session: Session, name: str, said: tuple[str, ...], words: Mapping[str, str]
    ) -> None:
        """Raises `LabelTaken` where one of the words means another structure than `name`."""
        owners = dict(words)
        for row in session.scalars(select(LabelRow).order_by(LabelRow.id.desc())):
            owners |= {word.casefold(): row.name for word in knowledge_of(row.knowledge)["names"]}
        owners |= {existing.casefold(): existing for existing in self._ids(session)}
        for word in said:
            owner = owners.get(word.casefold(), name)
            if owner.casefold() != name.casefold():
                raise LabelTaken(f"The name, or one of `names`, means `{owner}` already; give another one.")

    def _ids(self, session: Session) -> dict[str, int]:
        rows = session.scalars(select(LabelRow).order_by(LabelRow.id)).all()
        own = {row.name.casefold() for row in rows}
        ids = {name: n for n, name in enumerate(self.shipped, start=1) if name.casefold() not in own}
        ids |= {row.name: row.id for row in rows}
        return dict(sorted(ids.items(), key=lambda item: item[1]))


def checked_name(name: str) -> str:
    """A label's name without spaces around it; raises `StoreError`."""
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise StoreError(f"A label must have 1 to {MAX_NAME} printable characters.")
    if problem := markup_problem(name):
        raise StoreError(problem)
    return name


def _label(row: LabelRow) -> Label:
    return Label(row.id, row.name, knowledge_of(row.knowledge), row.editor, row.created)
