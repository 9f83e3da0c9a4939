"""The log of rounds: one at a time, progress while it runs, and an honest end whatever happened to its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from state_rows import Place

from medsegr.rounds.audit import Audit
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.rounds_log import STOPPED, RoundLog
from medsegr.rounds.tables import RoundRow, RoundStatus


def test_a_round_from_start_to_end(place: Place) -> None:
    log = RoundLog(place.open())
    made = log.create("hand", "ann", {"minutes": 5}, champion="v0")
    assert (made.id, made.status, made.open) == (1, RoundStatus.QUEUED, True)
    trainer = RoundLog(place.open())  # another object of this process leaves it alone
    assert trainer.open_round() == made
    assert trainer.start(made.id).status is RoundStatus.RUNNING
    trainer.freeze(made.id, {"train": ["a"], "val": []})
    trainer.progress(made.id, "train", 3, 10)
    seen = log.open_round()
    assert seen is not None and seen.data == {"train": ["a"], "val": []}
    assert {k: seen.progress[k] for k in ("phase", "done", "total")} == {
        "phase": "train",
        "done": 3,
        "total": 10,
    }
    assert seen.progress["seconds"] >= 0
    decision = {"adopted": True, "sentence": "Better.", "lower": 0.02}
    ended = trainer.finish(made.id, RoundStatus.ADOPTED, decision, "v1")
    assert (ended.status, ended.decision, ended.challenger, ended.champion) == (
        RoundStatus.ADOPTED,
        decision,
        "v1",
        "v0",
    )
    assert ended.started and ended.finished and not ended.open
    assert log.open_round() is None and log.get(1) == ended
    assert [entry.action for entry in Audit(log.database).entries()] == ["round", "round_end"]


def test_one_round_is_open_at_a_time(database: Database) -> None:
    log = RoundLog(database)
    first = log.create("hand", "ann")
    with pytest.raises(StoreError, match="Round 1 is queued"):
        log.create("night", "server")
    log.finish(first.id, RoundStatus.COLLECTING, {"missing": 3})
    second = log.create("night", "server")
    assert [r.id for r in log.rounds()] == [1, 2] and [r.id for r in log.rounds(1)] == [2]
    with pytest.raises(StoreError, match="only an open or failed"):
        log.start(first.id)
    log.finish(second.id, RoundStatus.FAILED, error="No disk.")
    log.create("hand", "ann")
    with pytest.raises(StoreError, match="Round 3 is queued"):
        log.start(second.id)


def test_a_round_ends_once(database: Database) -> None:
    log = RoundLog(database)
    made = log.start(log.create("hand", "ann").id)
    with pytest.raises(StoreError, match="cannot end as running"):
        log.finish(made.id, RoundStatus.RUNNING)
    gone = log.cancel(made.id, "bob")
    assert gone.status is RoundStatus.CANCELLED and gone.error == "Cancelled by bob."
    for late in (
        lambda: log.progress(made.id, "train", 1, 2),
        lambda: log.freeze(made.id, {}),
        lambda: log.finish(made.id, RoundStatus.ADOPTED, {}, "v1"),
        lambda: log.cancel(made.id, "ann"),
    ):
        with pytest.raises(StoreError, match="has ended"):
            late()
    assert log.get(made.id) == gone
    with pytest.raises(StoreError, match="No round"):
        log.get(9)


def test_an_end_goes_with_the_transaction_of_its_version(database: Database) -> None:
    log = RoundLog(database)
    made = log.start(log.create("hand", "ann").id)

    def fail() -> None:
        with database.writing() as session:
            log.finish(made.id, RoundStatus.ADOPTED, {}, "v1", session=session)
            raise RuntimeError("no version")

    with pytest.raises(RuntimeError, match="no version"):
        fail()
    assert log.get(made.id).status is RoundStatus.RUNNING


RUN = """
import sys, time
from pathlib import Path
from medsegr.rounds.database import Database
from medsegr.rounds.rounds_log import RoundLog
log = RoundLog(Database(Path(sys.argv[1]), sys.argv[2] or None))
log.start(int(sys.argv[3]))
print("running", flush=True)
time.sleep(60)
"""


def test_a_round_whose_process_was_killed_has_failed_and_may_be_taken_up_again(place: Place) -> None:
    log = RoundLog(place.open())
    made = log.create("hand", "ann")
    trainer = subprocess.Popen(
        [sys.executable, "-c", RUN, str(place.folder), place.url or "", str(made.id)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert trainer.stdout and trainer.stdout.readline() == "running\n"
    assert log.open_round() is not None  # it is alive
    with pytest.raises(StoreError, match="run by another process"):
        log.start(made.id)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.communicate()
    assert log.open_round() is None
    dead = log.get(made.id)
    assert dead.status is RoundStatus.FAILED and dead.error is not None and "stopped" in dead.error
    again = log.start(made.id)
    assert (again.status, again.error, again.finished) == (RoundStatus.RUNNING, None, None)


def test_a_round_that_is_taken_up_again_begins_anew(database: Database) -> None:
    log = RoundLog(database)
    made = log.start(log.create("hand", "ann").id)
    with database.session() as session, session.begin():
        session.execute(update(RoundRow).values(started="2020-01-01T00:00:00+00:00"))
    log.finish(made.id, RoundStatus.FAILED, error="Killed.")
    again = log.start(made.id)
    assert again.started is not None and again.started >= made.created
    log.progress(made.id, "train", 1, 2)
    assert log.get(made.id).progress["seconds"] < 60


def test_a_round_is_given_up_only_where_nobody_runs_it(database: Database) -> None:
    log = RoundLog(database)
    made = log.create("hand", "ann")
    log.start(made.id)  # by this process, which lives
    assert log.abandon(made.id, "Code 1.") is None and log.get(made.id).status is RoundStatus.RUNNING
    log.finish(made.id, RoundStatus.REFUSED, {})
    assert log.abandon(made.id, "Code 1.") is None and log.get(made.id).error is None
    queued = log.create("hand", "ann")
    failed = log.abandon(queued.id, "Code 1.")
    assert failed is not None and (failed.status, failed.error) == (RoundStatus.FAILED, "Code 1.")
    assert [entry.action for entry in Audit(database).entries()].count("round_end") == 2


def test_a_process_of_the_same_number_is_another_one(database: Database) -> None:
    log = RoundLog(database)
    made = log.create("hand", "ann")
    with database.session() as session, session.begin():
        owner = session.get_one(RoundRow, made.id).owner.split(" ", 2)
        session.execute(update(RoundRow).values(owner=f"{owner[0]} {float(owner[1]) - 900} {owner[2]}"))
    assert RoundLog(database).get(made.id).status is RoundStatus.FAILED


def test_a_round_of_another_machine_stays_until_it_is_cancelled(database: Database) -> None:
    log = RoundLog(database)
    made = log.create("hand", "ann")
    with database.session() as session, session.begin():
        session.execute(update(RoundRow).values(owner="1 2.0 elsewhere"))
    found = RoundLog(database).open_round()
    assert found is not None and found.id == made.id
    assert log.cancel(made.id, "ann").status is RoundStatus.CANCELLED


def silent(database: Database, owner: str) -> None:
    """All rounds have stored nothing for sixteen minutes, and this is who runs them."""
    heard = (datetime.now(UTC) - timedelta(minutes=16)).isoformat()
    with database.session() as session, session.begin():
        session.execute(update(RoundRow).values(owner=owner, heard=heard))


def test_a_round_of_another_machine_that_has_stored_nothing_for_long_has_failed(database: Database) -> None:
    """A container that was made anew has another host name, and its round is never heard of again."""
    log = RoundLog(database)
    made = log.start(log.create("hand", "ann").id)
    with database.session() as session:
        own = session.scalars(select(RoundRow.owner)).one()
    silent(database, own)
    assert log.open_round() is not None  # it is this machine's, and lives
    silent(database, "1 2.0 elsewhere")
    log.progress(made.id, "train", 1, 2)
    assert log.open_round() is not None  # heard of just now
    silent(database, "1 2.0 elsewhere")
    assert log.open_round() is None
    ended = log.get(made.id)
    assert (ended.status, ended.error) == (RoundStatus.FAILED, STOPPED)
    assert [entry.action for entry in Audit(database).entries()] == ["round", "round_end"]
    log.reopen(made.id)
    silent(database, "1 2.0 elsewhere")
    assert log.create("hand", "ann").id == 2


def test_a_round_of_another_machine_that_is_silent_may_be_taken_up(database: Database) -> None:
    log = RoundLog(database)
    made = log.start(log.create("hand", "ann").id)
    silent(database, "1 2.0 elsewhere")
    assert log.start(made.id).status is RoundStatus.RUNNING
