"""What must hold after a kill: nothing that was accepted is lost, and the state is whole. It only reads."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
from sqlalchemy import select

from medsegr.rounds.audit import Audit
from medsegr.rounds.cases import CaseStore
from medsegr.rounds.corrections import Correction, correction_of
from medsegr.rounds.database import DATABASE, Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.registry import FALLBACK, PROMOTE, ROLLBACK, Registry
from medsegr.rounds.rounds_log import OPEN
from medsegr.rounds.tables import (
    AuditRow,
    CaseRow,
    CorrectionRow,
    RoundRow,
    RoundStatus,
    TurnRow,
    TurnStatus,
    VersionRow,
)

from .clinic import Accepted, mask_hash

PATIENCE_S = 120.0
"""For what the server does in the background after its start: it makes up for missing cases, and closes what was left open."""
ALL = 10**6


class Inspector:
    """Looks at the state folder of a server that runs; `thorough` reads every file anew, else of the newest rows only."""

    def __init__(self, state: Path, checkpoint: Path, thorough: bool = True, newest: int = 30) -> None:
        self.state, self.count = state, ALL if thorough else newest
        self.database = Database(state)
        self.registry = Registry(self.database, checkpoint)
        self.cases = CaseStore(self.database)

    def lost(self, accepted: Accepted) -> Iterator[str]:
        """What was accepted and is not there, or not as it was sent."""
        yield from self._lost_turns(accepted)
        yield from self._lost_corrections(accepted)
        charges = {(c.version, c.action, c.created) for c in self.registry.charges(ALL)}
        for charge in accepted.charges:
            if charge not in charges:
                yield f"{charge[1]} of {charge[0]} is not in the list of charges"
        with self.database.session() as session:
            known = set(session.scalars(select(RoundRow.id)))
        for number in accepted.rounds:
            if number not in known:
                yield f"round {number} is gone"

    def broken(self) -> Iterator[str]:
        """What is not whole."""
        yield from self._sqlite()
        yield from self._versions()
        if row := Audit(self.database).verify():
            yield f"row {row} of the audit is not as it was written"
        yield from self._waiting(self._untold)
        yield from self._waiting(self._open_turns)
        yield from self._waiting(self._dead_rounds)
        yield from self._waiting(self._missing_cases)
        yield from self._unreadable()

    def open_rounds(self) -> list[int]:
        """Numbers of the rounds that have not ended."""
        with self.database.session() as session:
            query = select(RoundRow.id).where(RoundRow.status.in_([status.value for status in OPEN]))
            return list(session.scalars(query))

    def statuses(self) -> Counter[str]:
        """How the rounds ended."""
        with self.database.session() as session:
            return Counter(session.scalars(select(RoundRow.status)))

    def close(self) -> None:
        """Leave the database alone: the next process that opens it after a kill must be the server."""
        self.database.dispose()

    def _lost_turns(self, accepted: Accepted) -> Iterator[str]:
        with self.database.session() as session:
            rows = {row.id: row for row in session.scalars(select(TurnRow))}
        for answer in accepted.turns.values():
            row = rows.get(answer.turn)
            if row is None:
                yield f"turn {answer.turn} is gone"
            elif row.status != TurnStatus.DONE or row.answer != answer.text:
                yield f"turn {answer.turn} is {row.status}, or has another answer"
            elif tuple(finding["label"] for finding in row.findings) != answer.labels:
                yield f"turn {answer.turn} has other findings"

    def _lost_corrections(self, accepted: Accepted) -> Iterator[str]:
        stored = {correction.id: correction for correction in self._corrections()}
        newest = list(accepted.corrections.items())[-self.count :]
        for id_ in accepted.corrections:
            if id_ not in stored:
                yield f"correction {id_} is gone"
        for id_, hashes in newest:
            labels = [finding["label"] for finding in stored[id_].findings] if id_ in stored else []
            for name, expected in hashes.items() if labels else ():
                masks = self.database.correction_masks
                try:
                    found = {mask_hash(masks.read(id_, k).mask) for k, n in enumerate(labels, 1) if n == name}
                except StoreError as error:
                    yield f"correction {id_}: {error}"
                    continue
                if expected not in found:
                    yield f"correction {id_} has another mask of one structure than was sent"

    def _corrections(self) -> list[Correction]:
        with self.database.session() as session:
            rows = session.scalars(select(CorrectionRow).order_by(CorrectionRow.created))
            return [correction_of(row) for row in rows]

    def _sqlite(self) -> Iterator[str]:
        uri = f"file:{self.state / DATABASE}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check").fetchone()
            if found != "ok":
                yield f"integrity_check: {found}"
            for table, *_ in connection.execute("PRAGMA foreign_key_check"):
                yield f"a row of {table} points to nothing"

    def _versions(self) -> Iterator[str]:
        newest = [version.name for version in self.registry.versions()][-self.count :]
        for name in {self.registry.current().name, *newest} - {self.registry.base.name}:
            if problem := self.registry.verify(name):
                yield problem

    def _untold(self) -> list[str]:
        """Rows that belong together were written together. Rounds may go on meanwhile, so one look may fall between two."""
        found = []
        with self.database.session() as session:
            versions = set(session.scalars(select(VersionRow.name)))
            adopted = select(RoundRow.id, RoundRow.challenger).where(RoundRow.status == RoundStatus.ADOPTED)
            found += [
                f"round {n} adopted a version that is not there"
                for n, name in session.execute(adopted)
                if name not in versions
            ]
            actions = Counter(session.scalars(select(AuditRow.action)))
        charges = self.registry.charges(ALL)
        told = sum(actions[action] for action in (PROMOTE, ROLLBACK, FALLBACK))
        if len(charges) != told:
            found.append(f"there are {len(charges)} charges, but the audit tells of {told}")
        if len(versions) != actions["register"]:
            found.append(f"there are {len(versions)} versions, but the audit tells of {actions['register']}")
        if charges and charges[-1].version != (current := self.registry.current().name):
            found.append(f"{charges[-1].version} should be in charge, {current} is")
        return found

    def _waiting(self, look: Callable[[], list[str]]) -> list[str]:
        """What is still wrong after a while."""
        end = time.monotonic() + PATIENCE_S
        while (found := look()) and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def _open_turns(self) -> list[str]:
        """While nobody asks, no turn is open."""
        left = [TurnStatus.QUEUED.value, TurnStatus.RUNNING.value]
        with self.database.session() as session:
            rows = session.execute(select(TurnRow.id, TurnRow.status).where(TurnRow.status.in_(left)))
            return [f"turn {id_} is {status} for ever" for id_, status in rows]

    def _dead_rounds(self) -> list[str]:
        with self.database.session() as session:
            query = select(RoundRow).where(RoundRow.status.in_([status.value for status in OPEN]))
            rows = session.scalars(query).all()
            found = [f"round {r.id} is {r.status}, but nothing runs it" for r in rows if not _runs(r.owner)]
        return found + (["two rounds are open"] if len(rows) > 1 else [])

    def _missing_cases(self) -> list[str]:
        with self.database.session() as session:
            known = set(session.scalars(select(CaseRow.correction_id)))
            ids = session.scalars(select(CorrectionRow.id)).all()
            noted = set(session.scalars(select(AuditRow.subject).where(AuditRow.action == "correction")))
        return [f"correction {id_} has no training slices" for id_ in ids if id_ not in known] + [
            f"correction {id_} is not in the audit" for id_ in ids if id_ not in noted
        ]

    def _unreadable(self) -> Iterator[str]:
        """Files of rows, also of those that were never acknowledged."""
        for correction in self._corrections()[-self.count :]:
            try:
                self.database.correction_masks.read_packed(correction.id, len(correction.findings))
                self.cases.read(correction.id)
            except StoreError as error:
                yield f"correction {correction.id}: {error}"
        with self.database.session() as session:
            done = select(TurnRow.id, TurnRow.findings).where(TurnRow.status == TurnStatus.DONE.value)
            turns = session.execute(done.order_by(TurnRow.created)).all()
        for id_, findings in turns[-self.count :]:
            try:
                self.database.turn_masks.read_packed(id_, len(findings))
            except StoreError as error:
                yield f"turn {id_}: {error}"


def _runs(owner: str) -> bool:
    """Whether the process "pid start host" lives."""
    pid, start, _ = owner.split(" ", 2)
    try:
        process = psutil.Process(int(pid))
        dead = process.status() == psutil.STATUS_ZOMBIE
        return int(pid) != os.getpid() and not dead and abs(process.create_time() - float(start)) < 5
    except psutil.Error:
        return False
