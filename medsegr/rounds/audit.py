"""The audit: who changed what and when, in rows that are only ever added. Each row's hash covers the row and the hash
of the row before, so a change to an older row, or its loss, shows. What it cannot show is the loss of the newest rows:
keep the last hash elsewhere for that.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from medsegr.rounds.database import Database, lock_writes, now
from medsegr.rounds.tables import AuditRow

NOTHING_BEFORE = "0" * 64
SERVER = "server"
"""The editor of what nobody asked for by name."""


@dataclass(frozen=True)
class AuditEntry:
    """One row, detached from the database. `hash` is hexadecimal SHA-256."""

    id: int
    created: str
    editor: str
    action: str
    subject: str
    detail: dict[str, Any]
    previous: str
    hash: str


class Audit:
    """The rows of one database. `detail` is plain JSON and holds no text of patients."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def append(
        self, session: Session, editor: str, action: str, subject: str, detail: dict[str, Any] | None = None
    ) -> int:
        """Add a row within the caller's transaction, so that what is done and its row stay or go together; returns its
        number. The transaction lets nobody else write from here on.
        """
        return append(session, editor, action, subject, detail)

    def entries(self, limit: int = 200) -> list[AuditEntry]:
        """The newest rows, oldest first."""
        query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
        with self.database.session() as session:
            return [_entry(row) for row in reversed(session.scalars(query).all())]

    def verify(self) -> int | None:
        """The number of the first row that is not as it was written or does not follow the one before; None if all
        are whole.
        """
        previous, number = NOTHING_BEFORE, 0
        with self.database.session() as session:
            for row in session.scalars(select(AuditRow).order_by(AuditRow.id)).yield_per(1000):
                number += 1
                if row.id != number:
                    return number
                if row.previous != previous or row.hash != _hash(row):
                    return number
                previous = row.hash
        return None


def append(
    session: Session, editor: str, action: str, subject: str, detail: dict[str, Any] | None = None
) -> int:
    """See `Audit.append`."""
    lock_writes(session)
    last = session.scalars(select(AuditRow).order_by(AuditRow.id.desc()).limit(1)).first()
    plain = json.loads(json.dumps(detail or {}, allow_nan=False))
    row = AuditRow(
        id=last.id + 1 if last else 1,
        created=now(),
        editor=editor,
        action=action,
        subject=subject,
        detail=plain,
        previous=last.hash if last else NOTHING_BEFORE,
        hash="",
    )
    row.hash = _hash(row)
    session.add(row)
    session.flush()
    return row.id


def _hash(row: AuditRow) -> str:
    content = [row.id, row.created, row.editor, row.action, row.subject, row.detail, row.previous]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _entry(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        row.id, row.created, row.editor, row.action, row.subject, row.detail, row.previous, row.hash
    )
