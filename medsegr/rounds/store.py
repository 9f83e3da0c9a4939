"""Turns on disk: every question, its answer and its masks.

The server's service writes here, routes read. A mask file is complete before its turn is called done, so a
crash leaves a failed turn, never half an answer. Question text is stored here and nowhere else; SQL errors do
not quote it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.mask_files import PackedMasks, StoredMask
from medsegr.rounds.processes import alive, own_name
from medsegr.rounds.tables import TurnRow, TurnStatus

__all__ = ["NewTurn", "StoreError", "StoredMask", "Turn", "TurnStatus", "TurnStore"]


@dataclass(frozen=True)
class NewTurn:
    """What is known when a question arrives."""

    image_id: str
    question: str
    history: tuple[dict[str, str], ...] = ()
    editor: str = "anonymous"
    client_id: str | None = None
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class Turn:
    """One stored turn, detached from the database."""

    id: str
    image_id: str
    editor: str
    client_id: str | None
    created: str
    question: str
    history: list[dict[str, str]]
    options: dict[str, Any]
    status: TurnStatus
    answer: str | None
    findings: list[dict[str, Any]]
    model_version: str | None
    error: str | None
    latencies: dict[str, float]


class TurnStore:
    """Thread-safe access to the turns under `folder`, which is created when missing. Raises `StoreError`.

    `url` names another database than the folder's own (see `Database`). Other stores of the same folder are built on
    `database`.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.database = Database(folder, url)
        self._owner = f"{own_name()} {uuid.uuid4().hex}"
        self._close_orphans()

    def add(self, new: NewTurn) -> str:
        """Store a queued question; returns its id (32 hexadecimal digits)."""
        row = TurnRow(
            id=uuid.uuid4().hex,
            image_id=new.image_id,
            editor=new.editor,
            client_id=new.client_id,
            created=now(),
            owner=self._owner,
            question=new.question,
            history=list(new.history),
            options=new.options or {},
            status=TurnStatus.QUEUED.value,
            answer=None,
            findings=[],
            model_version=None,
            error=None,
            latencies={},
        )
        turn_id = row.id
        with self.database.session() as session, session.begin():
            session.add(row)
        return turn_id

    def start(self, turn_id: str) -> None:
        """A worker has taken the question."""
        self._set(turn_id, status=TurnStatus.RUNNING.value)

    def finish(
        self,
        turn_id: str,
        *,
        answer: str,
        findings: Sequence[dict[str, Any]],
        model_version: str,
        latencies: dict[str, float],
        masks: Sequence[bytes],
        shape: Sequence[int],
        geometry: dict[str, Any],
    ) -> None:
        """Store the reply. `masks` holds one `numpy.packbits` string per finding, each of an array of
        `shape`; the grid is stored also when there are none.
        """
        self.database.turn_masks.write(turn_id, masks, shape, geometry)
        self._set(
            turn_id,
            status=TurnStatus.DONE.value,
            answer=answer,
            findings=list(findings),
            model_version=model_version,
            latencies=latencies,
        )

    def close(self, turn_id: str, status: TurnStatus, error: str) -> None:
        """The question ends without an answer: cancelled or failed, with one sentence why."""
        self._set(turn_id, status=status.value, error=error)

    def get(self, turn_id: str) -> Turn:
        """The turn of this id; raises `StoreError`."""
        with self.database.session() as session:
            row = session.get(TurnRow, turn_id)
            if row is None:
                raise StoreError("No turn has this id; `GET /medsegr/turns` lists those that exist.")
            return _turn(row)

    def turns(self, image_id: str | None = None, limit: int = 200, editor: str | None = None) -> list[Turn]:
        """The newest turns, of one image and of one editor if named, oldest first."""
        query = select(TurnRow).order_by(TurnRow.created.desc(), TurnRow.id).limit(limit)
        if image_id is not None:
            query = query.where(TurnRow.image_id == image_id)
        if editor is not None:
            query = query.where(TurnRow.editor == editor)
        with self.database.session() as session:
            return [_turn(row) for row in reversed(session.scalars(query).all())]

    def last_answered(self, image_id: str, client_id: str | None, editor: str) -> Turn | None:
        """The newest turn with an answer that this client of this editor had about the image, if there is one."""
        query = (
            select(TurnRow)
            .where(
                TurnRow.image_id == image_id,
                TurnRow.client_id == client_id,
                TurnRow.editor == editor,
                TurnRow.status == TurnStatus.DONE.value,
            )
            .order_by(TurnRow.created.desc())
            .limit(1)
        )
        with self.database.session() as session:
            row = session.scalars(query).first()
            return _turn(row) if row else None

    def mask(self, turn_id: str, n: int) -> StoredMask:
        """Mask of finding `n` (from 1) of a finished turn; mask 0 is empty, on the image's grid. Raises
        `StoreError`.
        """
        turn = self.get(turn_id)
        found = len(turn.findings)
        if not 0 <= n <= found:
            raise StoreError(f"This turn has {found} masks, numbered from 1; there is no mask {n}.")
        if n == 0 and turn.status is not TurnStatus.DONE:
            raise StoreError(f"This turn is {turn.status.value}; masks belong to an answer.")
        return self.database.turn_masks.read(turn_id, n)

    def packed_masks(self, turn: Turn) -> PackedMasks:
        """All masks of a finished turn as they were stored, with their grid; raises `StoreError`."""
        return self.database.turn_masks.read_packed(turn.id, len(turn.findings))

    def dispose(self) -> None:
        """Close the database's connections."""
        self.database.dispose()

    def _set(self, turn_id: str, **values: Any) -> None:
        with self.database.session() as session, session.begin():
            session.execute(update(TurnRow).where(TurnRow.id == turn_id).values(**values))

    def _close_orphans(self) -> None:
        """Questions that a server which is gone left open will never be answered: say so."""
        left_open = [TurnStatus.QUEUED.value, TurnStatus.RUNNING.value]
        with self.database.session() as session, session.begin():
            owners = session.scalars(
                select(TurnRow.owner).where(TurnRow.status.in_(left_open)).distinct()
            ).all()
            gone = [owner for owner in owners if not _alive(owner)]
            session.execute(
                update(TurnRow)
                .where(TurnRow.status.in_(left_open), TurnRow.owner.in_(gone))
                .values(status=TurnStatus.FAILED.value, error="The server stopped before it had an answer.")
            )


def _alive(owner: str) -> bool:
    """Whether the process `pid start host token` runs. Our own name with another token is an earlier life of this process, and an
    owner of another form an earlier version's."""
    name, _, _ = owner.rpartition(" ")
    return name.count(" ") == 2 and name != own_name() and alive(name)


def _turn(row: TurnRow) -> Turn:
    return Turn(
        id=row.id,
        image_id=row.image_id,
        editor=row.editor,
        client_id=row.client_id,
        created=row.created,
        question=row.question,
        history=row.history,
        options=row.options,
        status=TurnStatus(row.status),
        answer=row.answer,
        findings=row.findings,
        model_version=row.model_version,
        error=row.error,
        latencies=row.latencies,
    )
