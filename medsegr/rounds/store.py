"""Turns on disk: every question, its answer and its masks, in one SQLite file and a folder of packed masks
beside it.

The server's service writes here, routes read. A mask file is complete before its turn is called done, so a
crash leaves a failed turn, never half an answer. Question text is stored here and nowhere else; SQL errors do
not quote it.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, create_engine, event, select, update
from sqlalchemy.orm import Session

from medsegr.errors import MedSegRError
from medsegr.rounds.tables import Base, SchemaVersion, TurnRow, TurnStatus

SCHEMA = 1
DATABASE = "medsegr.sqlite"
MASKS = "masks"

__all__ = ["NewTurn", "StoreError", "StoredMask", "Turn", "TurnStatus", "TurnStore"]


class StoreError(MedSegRError):
    """The state folder cannot be used, or a turn or mask in it does not exist."""


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


@dataclass(frozen=True, eq=False)
class StoredMask:
    """A finding's whole mask, bool on the grid that `geometry` (plain JSON) describes."""

    mask: NDArray[np.bool_]
    geometry: dict[str, Any]


class TurnStore:
    """Thread-safe access to the turns under `folder`, which is created when missing. Raises `StoreError`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # questions and masks are about patients
            (folder / MASKS).mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The state folder {folder} cannot be created ({error.strerror}); name a writable one."
            ) from error
        self._owner = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._engine = create_engine(f"sqlite:///{folder / DATABASE}", hide_parameters=True)
        event.listen(self._engine, "connect", _set_pragmas)
        Base.metadata.create_all(self._engine)
        _check_version(self._engine)
        self._close_orphans()

    def add(self, new: NewTurn) -> str:
        """Store a queued question; returns its id (32 hexadecimal digits)."""
        row = TurnRow(
            id=uuid.uuid4().hex,
            image_id=new.image_id,
            editor=new.editor,
            client_id=new.client_id,
            created=_now(),
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
        with Session(self._engine) as session, session.begin():
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
        `shape`.
        """
        if masks:
            self._write_masks(turn_id, masks, shape, geometry)
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
        with Session(self._engine) as session:
            row = session.get(TurnRow, turn_id)
            if row is None:
                raise StoreError("No turn has this id; `GET /medsegr/turns` lists those that exist.")
            return _turn(row)

    def turns(self, image_id: str | None = None, limit: int = 200) -> list[Turn]:
        """The newest turns, of one image if named, oldest first."""
        query = select(TurnRow).order_by(TurnRow.created.desc(), TurnRow.id).limit(limit)
        if image_id is not None:
            query = query.where(TurnRow.image_id == image_id)
        with Session(self._engine) as session:
            return [_turn(row) for row in reversed(session.scalars(query).all())]

    def mask(self, turn_id: str, n: int) -> StoredMask:
        """Mask of finding `n` (from 1) of a finished turn; raises `StoreError`."""
        found = len(self.get(turn_id).findings)
        if not 1 <= n <= found:
            raise StoreError(f"This turn has {found} masks, numbered from 1; there is no mask {n}.")
        try:
            with np.load(self._mask_path(turn_id), allow_pickle=False) as stored:
                shape = tuple(int(side) for side in stored["shape"])
                packed = stored[f"packed_{n}"]
                geometry: dict[str, Any] = json.loads(bytes(stored["geometry"]))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise StoreError("The masks of this turn are lost or damaged; ask the question again.") from error
        flat = np.unpackbits(packed, count=int(np.prod(shape)))
        return StoredMask(flat.view(np.bool_).reshape(shape), geometry)

    def dispose(self) -> None:
        """Close the database's connections."""
        self._engine.dispose()

    def _mask_path(self, turn_id: str) -> Path:
        return self.folder / MASKS / turn_id[:2] / f"{turn_id}.npz"

    def _write_masks(
        self, turn_id: str, masks: Sequence[bytes], shape: Sequence[int], geometry: dict[str, Any]
    ) -> None:
        path = self._mask_path(turn_id)
        path.parent.mkdir(exist_ok=True)
        arrays: dict[str, NDArray[Any]] = {
            f"packed_{n}": np.frombuffer(m, np.uint8) for n, m in enumerate(masks, start=1)
        }
        arrays["shape"] = np.asarray(shape, np.int64)
        arrays["geometry"] = np.frombuffer(json.dumps(geometry).encode(), np.uint8)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".npz", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _set(self, turn_id: str, **values: Any) -> None:
        with Session(self._engine) as session, session.begin():
            session.execute(update(TurnRow).where(TurnRow.id == turn_id).values(**values))

    def _close_orphans(self) -> None:
        """Questions that a server which is gone left open will never be answered: say so."""
        left_open = [TurnStatus.QUEUED.value, TurnStatus.RUNNING.value]
        with Session(self._engine) as session, session.begin():
            owners = session.scalars(
                select(TurnRow.owner).where(TurnRow.status.in_(left_open)).distinct()
            ).all()
            gone = [owner for owner in owners if not _alive(owner)]
            session.execute(
                update(TurnRow)
                .where(TurnRow.status.in_(left_open), TurnRow.owner.in_(gone))
                .values(status=TurnStatus.FAILED.value, error="The server stopped before it had an answer.")
            )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _alive(owner: str) -> bool:
    """Whether the process `pid-token` runs. Our own id with another token is an earlier life of the same
    number.
    """
    pid = int(owner.split("-")[0])
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _check_version(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        found = session.scalars(select(SchemaVersion.version)).first()
        if found is None:
            session.add(SchemaVersion(version=SCHEMA))
        elif found > SCHEMA:
            raise StoreError(
                f"The state folder has schema {found}; this medsegr reads up to {SCHEMA}: update it."
            )


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
