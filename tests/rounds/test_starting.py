"""Rounds in processes of their own: what happens to those that are killed, and what is left of those that have failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select, update
from state_rows import Place

from medsegr.rounds import starting
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.processes import end_tree
from medsegr.rounds.rounds_log import LEFT, STOPPED, Round, RoundStatus
from medsegr.rounds.runner import CHALLENGER
from medsegr.rounds.starting import RoundStarter
from medsegr.rounds.tables import RoundRow

RUN = """
import argparse, os, signal, sys, time
from pathlib import Path
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.rounds_log import RoundLog, RoundStatus

parser = argparse.ArgumentParser()
for name in ("--state", "--round", "--checkpoint"):
    parser.add_argument(name)
given = parser.parse_args()
database = Database(Path(given.state))
log = RoundLog(database)
number = int(given.round)
folder = database.paths.rounds / given.round
starts = folder / "starts.txt"
folder.mkdir(exist_ok=True)
if log.get(number).options["what"] == "unbegun":
    time.sleep(180)
try:
    this = log.start(number)
except StoreError:
    sys.exit(1)
count = len(starts.read_text()) + 1 if starts.exists() else 1
starts.write_text("x" * count)
challenger = folder / "challenger"
(challenger / "context").mkdir(parents=True, exist_ok=True)
(folder / "challenger.state").write_text("weights")
(folder / "page.html").write_text("<!doctype html>")
what = this.options["what"]
if what == "ended":  # by somebody else, and hangs
    log.finish(number, RoundStatus.REFUSED, {"sentence": "Not better."})
    (folder / "ended").touch()
    time.sleep(180)
if what == "slow":
    (challenger / "context").chmod(0o555)
    challenger.chmod(0o555)
    time.sleep(180)
if what == "killed" or what == "killed once" and count == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if what == "fail":
    (challenger / "context").chmod(0o555)
    challenger.chmod(0o555)
    log.finish(number, RoundStatus.FAILED, error="No memory.")
    sys.exit(1)
log.finish(number, RoundStatus.REFUSED, {"sentence": "Not better."})
"""
Start = Callable[..., RoundStarter]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Servers on the same state, one after another. Their rounds do not give way to others, so that a busy machine runs them."""
    monkeypatch.setattr(starting, "NICENESS", 0)
    script = tmp_path / "runner.py"
    script.write_text(RUN)
    place, made = Place(tmp_path / "state", None), []

    def one() -> RoundStarter:
        made.append(RoundStarter(place.open(), tmp_path, runner=(sys.executable, str(script))))
        return made[-1]

    yield one
    for starter in made:
        starter.close()
    for database in place.opened:
        database.dispose()


def begin(starter: RoundStarter, what: str, **options: float) -> Round:
    return starter.start("hand", "ann", {"what": what, **options})


def folder_of(starter: RoundStarter, number: int = 1) -> Path:
    return starter.database.paths.rounds / str(number)


def starts(starter: RoundStarter, number: int = 1) -> int:
    return len((folder_of(starter, number) / "starts.txt").read_text())


def left(starter: RoundStarter, number: int = 1) -> set[str]:
    return {path.name for path in folder_of(starter, number).iterdir()}


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "It did not happen in time."
        time.sleep(0.05)


def values(database: Database, **columns: object) -> None:
    with database.session() as session, session.begin():
        session.execute(update(RoundRow).values(**columns))


def test_a_round_that_goes_on_has_all_its_minutes_again(start: Start) -> None:
    starter = start()
    queued = starter.log.create("hand", "ann", {"what": "slow", "max_minutes": 5})
    long_ago = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    values(starter.database, started=long_ago, status=RoundStatus.FAILED.value, error=STOPPED)
    assert starter.resume() is not None
    until(lambda: starter.log.get(queued.id).status is RoundStatus.RUNNING)
    starter.reap()
    going = starter.log.get(queued.id)
    assert going.status is RoundStatus.RUNNING and going.started is not None and going.started > long_ago
    starter.cancel(queued.id, "ann")


@pytest.mark.parametrize(
    ("what", "status", "times"), [("killed once", "refused", 2), ("killed", "failed", 3)]
)
def test_a_round_whose_process_is_killed_goes_on_but_not_again_and_again(
    start: Start, what: str, status: str, times: int
) -> None:
    starter = start()
    ended = starter.wait(begin(starter, what).id)
    assert (ended.status.value, starts(starter)) == (status, times)
    if what == "killed":
        assert ended.error == starting.GIVEN_UP and "stopped from outside 3 times" in ended.error
        assert "challenger" not in left(starter) and "challenger.state" not in left(starter)
        assert start().resume() is None  # nor by the next server


def killed(server: RoundStarter) -> None:
    """The server and the process of its round, at once and from outside."""
    for child in server._children.values():
        end_tree(child.pid)
        child.wait()
    server._children.clear()


def test_a_server_that_is_stopped_in_order_does_not_use_up_its_rounds(start: Start) -> None:
    server = start()
    number = begin(server, "slow").id
    for _ in range(starting.RESUMED + 2):
        until(lambda log=server.log: log.get(number).status is RoundStatus.RUNNING)  # type: ignore[misc]
        server.close()
        assert server.log.get(number).error == LEFT
        server = start()
        going = server.resume()
        assert going is not None and going.resumed == 0
    server.cancel(number, "ann")


def test_a_round_that_ends_with_its_server_each_time_is_given_up(start: Start) -> None:
    """The memory's killer, or systemd after it, takes the server along; the next one starts, and so on."""
    first = start()
    number = begin(first, "slow").id
    until((folder_of(first) / "page.html").exists)
    killed(first)
    for times in range(1, starting.RESUMED + 1):
        server = start()
        going = server.resume()
        assert going is not None and going.resumed == times
        until(lambda log=server.log: log.get(number).status is RoundStatus.RUNNING)  # type: ignore[misc]
        killed(server)
    last = start()
    assert last.resume() is None
    ended = last.log.get(number)
    assert (ended.status, ended.error) == (RoundStatus.FAILED, starting.GIVEN_UP)
    assert "challenger" not in left(last) and start().resume() is None
    assert last.go_on(number).resumed == 0  # somebody ordered it
    last.cancel(number, "ann")


def test_no_other_round_takes_the_place_of_one_that_goes_on(start: Start) -> None:
    starter = start()
    begun = begin(starter, "killed once")
    until(lambda: starter._children[begun.id].poll() is not None)
    starter.reap()  # its next process has only just been started
    with pytest.raises(StoreError, match="wait for it"):
        begin(starter, "other")
    assert starter.wait(begun.id).status is RoundStatus.REFUSED


def test_a_killed_round_goes_on_also_where_somebody_looked_first(start: Start) -> None:
    starter = start()
    begun = begin(starter, "killed once")
    until(lambda: starter._children[begun.id].poll() is not None)
    assert starter.log.open_round() is None and starter.log.get(begun.id).error == STOPPED
    assert "challenger" in left(starter)
    assert starter.wait(begun.id).status is RoundStatus.REFUSED


def test_a_round_goes_on_no_more_once_the_server_is_stopped(start: Start) -> None:
    starter = start()
    begun = begin(starter, "killed")
    child = starter._children[begun.id]
    until(lambda: child.poll() is not None)
    starter.close()
    starter._children[begun.id] = child  # as if it was looked at, at this moment
    starter.reap()
    assert starter._children == {} and starter.log.get(begun.id).error == STOPPED
    assert start().resume() is not None


def test_a_round_that_another_process_runs_goes_on_when_a_second_one_was_refused(start: Start) -> None:
    """The server died between queueing and the start; the next one began the round a second time."""
    starter = start()
    queued = starter.log.create("hand", "ann", {"what": "slow"})
    values(starter.database, status=RoundStatus.FAILED.value, error=STOPPED)
    command = [*starter._runner, "--state", str(starter.database.folder), "--round", "1", "--checkpoint", "x"]
    with subprocess.Popen(command) as first:
        until(lambda: starter.log.get(queued.id).open)
        starter._spawn(queued.id)
        until(lambda: starter._children[queued.id].poll() is not None)
        assert starter._children[queued.id].returncode == 1
        starter.reap()
        found = starter.log.get(queued.id)
        assert (found.status, found.error, starter._children) == (RoundStatus.RUNNING, None, {})
        with starter.database.session() as session:
            assert session.scalars(select(RoundRow.owner)).one().startswith(f"{first.pid} ")
        starter.cancel(queued.id, "ann")
        first.wait(timeout=60)


def test_a_round_whose_process_ends_before_it_begins_has_failed(start: Start, tmp_path: Path) -> None:
    (tmp_path / "runner.py").write_text("raise SystemExit(4)")
    starter = start()
    ended = starter.wait(begin(starter, "nothing").id)
    assert (ended.status, ended.error) == (RoundStatus.FAILED, "The round's process ended with code 4.")


@pytest.mark.parametrize("how", ["fail", "cancel", "late"])
def test_what_a_round_trained_goes_when_it_is_cancelled_or_has_failed(start: Start, how: str) -> None:
    starter = start()
    options = {"max_minutes": 0.05} if how == "late" else {}
    begun = begin(starter, "fail" if how == "fail" else "slow", **options)
    until(lambda: (folder_of(starter) / "page.html").exists())
    if how == "cancel":
        until(lambda: not (folder_of(starter) / CHALLENGER).stat().st_mode & 0o200)
        assert starter.cancel(begun.id, "ann").status is RoundStatus.CANCELLED
    else:
        assert starter.wait(begun.id).status is RoundStatus.FAILED
    assert left(starter) == {"page.html", "starts.txt"}


def test_a_round_that_outlived_its_server_has_its_minutes_and_no_more(start: Start) -> None:
    killed, second = start(), start()
    number = begin(killed, "slow", max_minutes=5).id
    until((folder_of(killed) / "page.html").exists)
    process = killed._children.pop(number)  # a server that is killed ends nothing
    second.reap()
    assert second.log.get(number).status is RoundStatus.RUNNING
    values(second.database, started=(datetime.now(UTC) - timedelta(minutes=6)).isoformat())
    second.reap()
    found = second.log.get(number)
    assert found.status is RoundStatus.FAILED and "longer than 5 minutes" in str(found.error)
    process.wait(timeout=60)
    assert "challenger" not in left(second)


def test_a_round_that_hangs_before_it_begins_is_ended(start: Start) -> None:
    starter = start()
    number = begin(starter, "unbegun", max_minutes=0.01).id
    child = starter._children[number]
    values(starter.database, heard=(datetime.now(UTC) - timedelta(minutes=5)).isoformat())
    starter.reap()
    assert starter.log.get(number).status is RoundStatus.QUEUED  # its process may take its time to begin
    long_ago = (datetime.now(UTC) - timedelta(minutes=11)).isoformat()
    values(starter.database, created=long_ago, heard=long_ago)
    starter.reap()
    found = starter.log.get(number)
    assert found.status is RoundStatus.FAILED and "longer than 10 minutes" in str(found.error)
    assert child.poll() is not None and starter._children == {}


def test_a_process_that_does_not_end_with_its_round_is_ended(start: Start) -> None:
    starter = start()
    number = begin(starter, "ended").id
    until((folder_of(starter) / "ended").exists)
    starter.reap()
    assert starter._children[number].poll() is None  # it may write what is left to write
    values(starter.database, finished=(datetime.now(UTC) - timedelta(minutes=2)).isoformat())
    starter.reap()
    assert starter._children == {} and starter.log.get(number).status is RoundStatus.REFUSED


def test_the_next_server_deletes_what_ended_rounds_left_and_goes_on_with_the_newest(start: Start) -> None:
    first = start()
    for number in (1, 2):
        first.log.create("hand", "ann", {"what": "refuse"})
        work = folder_of(first, number) / CHALLENGER
        work.mkdir(parents=True)
        (work / "weights").write_text("x")
        work.chmod(0o555)
        first.log.finish(number, RoundStatus.FAILED, error=STOPPED)
    second = start()
    assert second.resume() is not None
    assert left(second, 1) == set() and CHALLENGER in left(second, 2)
    assert second.wait(2).status is RoundStatus.REFUSED


def ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def niceness(pid: int) -> tuple[int, int]:
    """Of a process, and of its session where Linux counts by session (elsewhere the same)."""
    own = int(psutil.Process(pid).nice())
    try:
        return own, int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])
    except OSError:
        return own, own


def test_a_round_gives_way_to_the_server_whatever_the_server_gives_way_to(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter = start()
    for steps in (2, 40):
        monkeypatch.setattr(starting, "NICENESS", steps)
        begun = begin(starter, "slow")
        expected = min(os.nice(0) + steps, 19)
        own, session = niceness(starter._children[begun.id].pid)
        assert own == expected
        assert (
            not hasattr(os, "SCHED_BATCH")
            or os.sched_getscheduler(starter._children[begun.id].pid) == os.SCHED_BATCH
        )
        assert steps == 40 or session == expected  # a second change within 0.1 s may be refused
        starter.cancel(begun.id, "ann")


CHAIN = """
import subprocess, sys, time
from pathlib import Path
left, pids = int(sys.argv[1]), Path(sys.argv[2])
with pids.open("a") as noted:
    noted.write(f"{__import__('os').getpid()}\\n")
if left:
    subprocess.Popen([sys.executable, __file__, str(left - 1), str(pids)]).wait()
else:
    from medsegr.rounds.processes import end_when_orphaned
    end_when_orphaned()
    (pids.parent / "looking").touch()
time.sleep(120)
"""


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_of_a_group_ends_when_the_round_or_torchrun_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    """Killed: the round's process (0), or the one between it and the group (1)."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path or str(Path.cwd()) for path in sys.path))
    script, pids = tmp_path / "chain.py", tmp_path / "pids"
    script.write_text(CHAIN)
    with subprocess.Popen([sys.executable, str(script), "2", str(pids)]) as round_:
        until((tmp_path / "looking").exists)
        family = [psutil.Process(int(line)) for line in pids.read_text().split()]
        try:
            time.sleep(1.5)
            assert not ended(family[2])
            family[killed].send_signal(signal.SIGKILL)
            until(lambda: ended(family[2]), 30)
        finally:
            for process in family:
                if not ended(process):
                    process.kill()
            round_.wait(timeout=60)
