"""The audit: rows are added in one chain, and what was done to an older row shows."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import Session
from state_rows import Place

from medsegr.rounds.audit import Audit
from medsegr.rounds.database import Database
from medsegr.rounds.tables import AuditRow


def fill(database: Database, count: int = 4) -> Audit:
    audit = Audit(database)
    for n in range(count):
        with database.writing() as session:
            audit.append(session, "ann", "promote", f"v{n}", {"dice": 0.1 * n, "why": "bessere Maske ü"})
    return audit


def test_rows_follow_each_other(database: Database) -> None:
    audit = fill(database)
    assert audit.verify() is None
    entries = audit.entries()
    assert [entry.id for entry in entries] == [1, 2, 3, 4]
    assert [e.previous for e in entries[1:]] == [e.hash for e in entries[:-1]]
    assert entries[0].previous == "0" * 64 and entries[2].detail == {"dice": 0.2, "why": "bessere Maske ü"}
    assert [entry.subject for entry in audit.entries(limit=2)] == ["v2", "v3"]


def test_an_empty_audit_is_whole(database: Database) -> None:
    assert Audit(database).verify() is None and Audit(database).entries() == []


@pytest.mark.parametrize(
    "change",
    [{"editor": "bob"}, {"detail": {}}, {"subject": "v9"}, {"hash": "f" * 64}, {"previous": "0" * 64}],
)
def test_a_changed_row_shows(database: Database, change: dict[str, object]) -> None:
    audit = fill(database)
    with database.session() as session, session.begin():
        session.execute(update(AuditRow).where(AuditRow.id == 2).values(**change))
    assert audit.verify() == 2


def test_a_lost_row_shows(database: Database) -> None:
    audit = fill(database)
    with database.session() as session, session.begin():
        session.execute(delete(AuditRow).where(AuditRow.id == 3))
    assert audit.verify() == 3


def test_a_row_stays_or_goes_with_what_was_done(database: Database) -> None:
    audit = fill(database, 1)

    def fail(session: Session) -> None:
        with session.begin():
            audit.append(session, "ann", "promote", "lost")
            audit.append(session, "ann", "promote", "lost too")
            raise RuntimeError("undone")

    with database.session() as session, pytest.raises(RuntimeError, match="undone"):
        fail(session)
    assert [entry.subject for entry in audit.entries()] == ["v0"] and audit.verify() is None


def test_many_writers_make_one_chain(place: Place) -> None:
    databases = [place.open(), place.open()]
    threads = [threading.Thread(target=fill, args=(databases[n % 2], 3)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    audit = Audit(databases[0])
    assert len(audit.entries()) == 12 and audit.verify() is None
