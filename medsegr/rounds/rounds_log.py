"""The log of rounds: what was started by whom, how far it is, and how it ended. There is one open round at a time; a round
whose process is gone has failed, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from medsegr.rounds.audit import append
from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.processes import alive, elsewhere, own_name
from medsegr.rounds.tables import RoundRow, RoundStatus

__all__ = ["Round", "RoundLog", "RoundStatus"]

OPEN = (RoundStatus.QUEUED, RoundStatus.RUNNING)
STOPPED = "The process that ran this round stopped before it was done."
LEFT = "The server was stopped while this round ran; its next start goes on with it."
SILENT_S = 900.0
"""Whether another machine's process lives cannot be seen: it counts as gone once it has stored nothing for so long. A container
that is made anew is another machine, too."""


@dataclass(frozen=True)
class Round:
    """One round, detached from the database. `data`: ids and hashes of what it is trained and judged on; `progress`:
    {phase, done, total, seconds}; `decision`: the gate's numbers and sentence; `resumed`: how often it went on by itself;
    `heard`: when it was queued, or its process last stored something.
    """

    id: int
    created: str
    started: str | None
    finished: str | None
    status: RoundStatus
    trigger: str
    editor: str
    options: dict[str, Any]
    data: dict[str, Any]
    progress: dict[str, Any]
    champion: str | None
    challenger: str | None
    decision: dict[str, Any]
    error: str | None
    resumed: int
    heard: str | None

    @property
    def open(self) -> bool:
        """Whether it is still to end."""
        return self.status in OPEN


class RoundLog:
    """Thread-safe access to the rounds of one database. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.close_orphans()

    def create(
        self, trigger: str, editor: str, options: dict[str, Any] | None = None, champion: str | None = None
    ) -> Round:
        """Queue a round; raises `StoreError` while another one is open."""
        self.close_orphans()
        with self.database.writing() as session:
            if (other := _open(session)) is not None:
                raise StoreError(f"Round {other.id} is {other.status}; wait for it, or cancel it first.")
            row = RoundRow(
                created=now(),
                status=RoundStatus.QUEUED.value,
                trigger=trigger,
                editor=editor,
                owner=own_name(),
                options=options or {},
                data={},
                progress={},
                champion=champion,
                decision={},
                resumed=0,
                heard=now(),
            )
            session.add(row)
            session.flush()
            append(session, editor, "round", str(row.id), {"trigger": trigger, "options": row.options})
            return _round(row)

    def reopen(self, round_id: int, resumed: int = 0) -> Round:
        """Queue a round that failed once more, so that none takes its place until its process has begun; raises `StoreError`
        for one that has not failed, or while another one is open. `resumed`: how often it was stopped from outside and went on by
        itself; somebody who orders it begins anew.
        """
        with self.database.writing() as session:
            row = _row(session, round_id)
            if row.status != RoundStatus.FAILED:
                raise StoreError(
                    f"Round {round_id} is {row.status}; only one that failed can be taken up again."
                )
            if (other := _open(session)) is not None:
                raise StoreError(f"Round {other.id} is {other.status}; wait for it, or cancel it first.")
            row.status, row.owner = RoundStatus.QUEUED.value, own_name()
            row.started, row.finished, row.error = None, None, None
            row.resumed, row.heard = resumed, now()
            return _round(row)

    def start(self, round_id: int, champion: str | None = None) -> Round:
        """This process runs the round from now on. A round that failed may be taken up again; raises `StoreError` for one
        that has ended otherwise, that a living process runs, or while another one is open.
        """
        with self.database.writing() as session:
            row = _row(session, round_id)
            if RoundStatus(row.status) not in (*OPEN, RoundStatus.FAILED):
                raise StoreError(f"Round {round_id} is {row.status}; only an open or failed one can be run.")
            if row.status == RoundStatus.RUNNING and row.owner != own_name() and not _gone(row):
                raise StoreError(f"Round {round_id} is run by another process; wait for it, or cancel it.")
            other = _open(session)
            if other is not None and other.id != round_id:
                raise StoreError(f"Round {other.id} is {other.status}; wait for it, or cancel it first.")
            row.status, row.owner = RoundStatus.RUNNING.value, own_name()
            row.started, row.finished, row.error = now(), None, None
            row.heard = row.started
            row.champion = champion or row.champion
            return _round(row)

    def freeze(self, round_id: int, data: dict[str, Any]) -> None:
        """Store what the round is trained and judged on."""
        with self.database.writing() as session:
            row = _running(session, round_id)
            row.data, row.heard = data, now()

    def progress(self, round_id: int, phase: str, done: int, total: int) -> None:
        """Store how far the round is; raises `StoreError` once it was cancelled, which ends it."""
        with self.database.writing() as session:
            row = _running(session, round_id)
            seconds = _seconds_since(row.started or row.created)
            row.progress = {"phase": phase, "done": done, "total": total, "seconds": seconds}
            row.heard = now()

    def finish(
        self,
        round_id: int,
        status: RoundStatus,
        decision: dict[str, Any] | None = None,
        challenger: str | None = None,
        error: str | None = None,
        *,
        session: Session | None = None,
    ) -> Round:
        """The round ends, with the gate's decision or with one sentence why there is none; within `session`, so that it
        ends and its version takes charge together. Raises `StoreError` where it has ended before.
        """
        if status in OPEN:
            raise StoreError(f"A round cannot end as {status.value}; a status that ends it is expected.")
        with self.database.writing(session) as own:
            row = _running(own, round_id)
            row.status, row.finished = status.value, now()
            row.decision, row.error = decision or {}, error
            row.challenger = challenger or row.challenger
            detail = {"status": status.value, "challenger": row.challenger}
            append(own, row.editor, "round_end", str(round_id), detail)
            own.flush()
            return _round(row)

    def abandon(self, round_id: int, error: str) -> Round | None:
        """The process that was to run this round has ended: the round has failed. None where it has ended otherwise before, or
        another living process runs it.
        """
        with self.database.writing() as session:
            row = _row(session, round_id)
            noted = row.status == RoundStatus.FAILED and row.error in (
                STOPPED,
                LEFT,
            )  # by `close_orphans`, which knows less
            another = row.status == RoundStatus.RUNNING and not _gone(row)
            if not noted and (RoundStatus(row.status) not in OPEN or another):
                return None
            row.error = error
            if not noted:
                row.status, row.finished = RoundStatus.FAILED.value, now()
                append(session, row.editor, "round_end", str(round_id), {"status": row.status})
            return _round(row)

    def cancel(self, round_id: int, editor: str) -> Round:
        """End an open round without a decision; its process notices with its next `progress`. Raises `StoreError`."""
        with self.database.writing() as session:
            row = _running(session, round_id)
            row.status, row.finished = RoundStatus.CANCELLED.value, now()
            row.error = f"Cancelled by {editor}."
            append(session, editor, "round_end", str(round_id), {"status": row.status})
            return _round(row)

    def get(self, round_id: int) -> Round:
        """The round of this number; raises `StoreError`."""
        with self.database.session() as session:
            return _round(_row(session, round_id))

    def rounds(self, limit: int = 200) -> list[Round]:
        """The newest rounds, oldest first."""
        query = select(RoundRow).order_by(RoundRow.id.desc()).limit(limit)
        with self.database.session() as session:
            return [_round(row) for row in reversed(session.scalars(query).all())]

    def open_round(self) -> Round | None:
        """The round that is queued or running, None where there is none."""
        self.close_orphans()
        with self.database.session() as session:
            row = _open(session)
            return _round(row) if row else None

    def close_orphans(self) -> None:
        """Rounds that a process which is gone left open have failed: say so."""
        with self.database.session() as session:
            row = _open(session)
            if row is None or not _gone(row):
                return
        with self.database.writing() as session:
            row = _open(session)
            if row is not None and _gone(row):
                row.status, row.finished, row.error = RoundStatus.FAILED.value, now(), STOPPED
                append(session, row.editor, "round_end", str(row.id), {"status": row.status})


def _row(session: Session, round_id: int) -> RoundRow:
    row = session.get(RoundRow, round_id) if 0 < round_id < 2**31 else None
    if row is None:
        raise StoreError("No round has this number; `GET /medsegr/rounds` lists those that exist.")
    return row


def _running(session: Session, round_id: int) -> RoundRow:
    row = _row(session, round_id)
    if RoundStatus(row.status) not in OPEN:
        raise StoreError(f"Round {round_id} is {row.status}; it has ended.")
    return row


def _open(session: Session) -> RoundRow | None:
    query = select(RoundRow).where(RoundRow.status.in_([status.value for status in OPEN]))
    return session.scalars(query.order_by(RoundRow.id).limit(1)).first()


def _gone(row: RoundRow) -> bool:
    """Whether the process that queued or runs the round is gone."""
    if elsewhere(row.owner):
        return _seconds_since(row.heard or row.started or row.created) > SILENT_S
    return not alive(row.owner)


def _seconds_since(created: str) -> float:
    return round((datetime.fromisoformat(now()) - datetime.fromisoformat(created)).total_seconds(), 1)


def _round(row: RoundRow) -> Round:
    return Round(
        id=row.id,
        created=row.created,
        started=row.started,
        finished=row.finished,
        status=RoundStatus(row.status),
        trigger=row.trigger,
        editor=row.editor,
        options=row.options,
        data=row.data,
        progress=row.progress,
        champion=row.champion,
        challenger=row.challenger,
        decision=row.decision,
        error=row.error,
        resumed=row.resumed,
        heard=row.heard,
    )
