"""Start a round in a process of its own, know when it ends, and end it with all its children.

The process loads no server and no model of the serving kind: `python -m medsegr.rounds.runner`. It outlives a server that is
killed, and is known by its row; a server that is stopped takes it along, and the next one resumes it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.processes import end_tree, give_way, owner_pid
from medsegr.rounds.rounds_log import LEFT, STOPPED, Round, RoundLog, RoundStatus
from medsegr.rounds.tables import CorrectionRow, RoundRow, WithdrawalRow
from medsegr.rounds.version_files import remove

logger = logging.getLogger(__name__)
RUNNER = (sys.executable, "-m", "medsegr.rounds.runner")
RUNNER_VARIABLE = "MEDSEGR_ROUND_RUNNER"
"""Environment: another module than `medsegr.rounds.runner`, for tests."""
URL_VARIABLE = "MEDSEGR_DATABASE"
"""Environment of the round's process: the database's URL, which may hold a password and so is no argument."""
NICENESS = 15
"""Steps that a round is nicer than the server, whose model is 5 nicer."""
LOOK_S = 2.0
RESUMED = 2
"""A round whose process is stopped from outside goes on that often, with this server and the next ones together, and has failed
after that: memory may never suffice."""
GIVEN_UP = f"The round's process was stopped from outside {RESUMED + 1} times, so it is given up; memory may not suffice."
BEGIN_MINUTES = 10.0
"""So long a round's process may take to begin, however few minutes the round has."""
LEAVE_S = 60.0
"""So long the process of a round that has ended may take to end as well."""
WORK = "challenger*"
"""What a round trains, and the state of its training, in its folder; `runner.CHALLENGER` names it."""


class NotStarted(StoreError):
    """The process of a round cannot be started, which has nothing to do with other rounds."""


class RoundStarter:
    """The rounds of one state folder; `checkpoint` is the one that the server was started with. Thread-safe."""

    def __init__(
        self, database: Database, checkpoint: Path, log: RoundLog | None = None, runner: Sequence[str] = ()
    ) -> None:
        module = os.environ.get(RUNNER_VARIABLE)
        self.database, self.checkpoint = database, checkpoint
        self.log = log or RoundLog(database)
        self._runner = tuple(runner) or ((sys.executable, "-m", module) if module else RUNNER)
        self._lock = threading.Lock()
        self._children: dict[int, subprocess.Popen[bytes]] = {}  # locked; by number of the round
        self._closed = False  # locked

    def start(self, trigger: str, editor: str, options: dict[str, Any], champion: str | None = None) -> Round:
        """Begin a round; returns as soon as it is queued. Raises `StoreError` while another one is open, `NotStarted` where it
        gets no process.
        """
        queued = self.log.create(trigger, editor, options, champion)
        try:
            self._spawn(queued.id)
        except (OSError, StoreError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            sentence = f"The round's process cannot be started ({why})."
            self.log.finish(queued.id, RoundStatus.FAILED, error=sentence)
            raise NotStarted(sentence) from error
        return queued

    def resume(self) -> Round | None:
        """Go on with the newest round if the process that ran it was stopped from outside, `RESUMED` times at most; None if there
        is nothing to do. What earlier rounds left behind is deleted. For the start of a server.
        """
        self.log.close_orphans()
        rounds = self.log.rounds()
        newest = rounds[-1] if rounds and _interrupted(rounds[-1]) else None
        if newest is not None and newest.resumed >= RESUMED and newest.error == STOPPED:
            logger.error("Round %d was interrupted; it does not go on again.", newest.id)
            self.log.abandon(newest.id, GIVEN_UP)
            newest = None
        for ended in rounds:
            if not ended.open and ended is not newest:
                self._clear(ended.id)
        if newest is None:
            return None
        logger.warning("Round %d was interrupted; it goes on.", newest.id)
        return self.go_on(
            newest.id, newest.resumed + (newest.error == STOPPED)
        )  # a clean stop is nobody's fault

    def go_on(self, round_id: int, resumed: int = 0) -> Round:
        """Take up a round that was interrupted or has failed, with the data that it froze; raises `StoreError`. `resumed`: see
        `RoundLog.reopen`; one that somebody orders may be interrupted as often as a new one.
        """
        failed = self.log.get(round_id)
        queued = self.log.reopen(round_id, resumed)
        try:
            self._spawn(round_id)
        except (OSError, StoreError):
            self.log.abandon(round_id, failed.error or STOPPED)
            raise
        return queued

    def printed(self, round_id: int) -> Path:
        """The file with what the process of this round printed."""
        return self.database.paths.rounds / f"{round_id}.log"

    def cancel(self, round_id: int, editor: str) -> Round:
        """End an open round: from now on it cannot adopt anything, and its processes end. Raises `StoreError`."""
        owner = self._owner(round_id)
        cancelled = self.log.cancel(round_id, editor)
        self._end(round_id, owner)
        return cancelled

    def reap(self) -> None:
        """Take note of processes that have ended; a round whose process ended without saying how has failed, as has one that
        takes longer than its `max_minutes`, whoever started it. One whose process was killed goes on, `RESUMED` times.
        """
        with self._lock:
            ended = {n: child for n, child in self._children.items() if child.poll() is not None}
            for number in ended:
                del self._children[number]
            running = dict(self._children)
        for number, child in ended.items():
            self._close(number, child)
        for number in running:
            if _seconds_since(self.log.get(number).finished) > LEAVE_S:
                self._end(number)
        self._end_late()

    def wait(self, round_id: int) -> Round:
        """Block until a round that was started here has ended."""
        while True:
            with self._lock:
                child = self._children.get(round_id)
            if child is None:
                return self.log.get(round_id)
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=LOOK_S)
            self.reap()

    def new_corrections(self, *, judged: bool = False) -> int:
        """Corrections since the last round began, those withdrawn left out; with `judged`, since the last that had a result."""
        rounds = select(func.max(RoundRow.created))
        if judged:
            results = (RoundStatus.ADOPTED, RoundStatus.REFUSED, RoundStatus.COLLECTING)
            rounds = rounds.where(RoundRow.status.in_([status.value for status in results]))
        withdrawn = select(WithdrawalRow.correction_id)
        query = select(func.count()).select_from(CorrectionRow).where(CorrectionRow.id.not_in(withdrawn))
        with self.database.session() as session:
            since = session.scalar(rounds)
            if since is not None:
                query = query.where(CorrectionRow.created > since)
            return session.scalar(query) or 0

    def close(self) -> None:
        """End what was started here; the next server goes on with it."""
        with self._lock:
            self._closed = True
            children = dict(self._children)
            self._children.clear()
        for number, child in children.items():
            if child.poll() is None:
                end_tree(child.pid)
                child.wait()
                self.log.abandon(number, LEFT)

    def _spawn(self, round_id: int) -> None:
        command = [*self._runner, "--state", str(self.database.folder), "--round", str(round_id),
                   "--checkpoint", str(self.checkpoint)]  # fmt: skip
        paths = [path or str(Path.cwd()) for path in sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        environment.pop(
            URL_VARIABLE, None
        )  # of the shell that started the server; the server's own database counts
        if not self.database.is_sqlite:
            environment[URL_VARIABLE] = self.database.url.render_as_string(hide_password=False)
        with self._lock, self.printed(round_id).open("ab") as printed:
            if self._closed:
                raise StoreError("The server is being stopped; its next start goes on.")
            child = self._children[round_id] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, env=environment,
                start_new_session=True,  # Ctrl-C is the server's to handle
            )  # fmt: skip
        give_way(child.pid, NICENESS)  # serving goes first

    def _end_late(self) -> None:
        """End the open round if its time is over, also one that outlived its server or has not even begun."""
        found = self.log.open_round()
        minutes = float(found.options.get("max_minutes") or 0) if found else 0.0
        if found is None or not minutes:
            return
        begun = found.status is RoundStatus.RUNNING
        bound = minutes if begun else max(minutes, BEGIN_MINUTES)
        since = found.started if begun else found.heard
        if _seconds_since(since or found.created) <= 60 * bound:
            return
        owner = (
            self._owner(found.id) if begun else None
        )  # of one that has not begun, it is the server that queued it
        try:
            sentence = f"The round took longer than {bound:g} minutes and was ended."
            self.log.finish(found.id, RoundStatus.FAILED, error=sentence)
        except StoreError:  # it has ended at this moment
            return
        self._end(found.id, owner)

    def _owner(self, round_id: int) -> str | None:
        with self.database.session() as session:
            return session.scalar(select(RoundRow.owner).where(RoundRow.id == round_id))

    def _end(self, round_id: int, owner: str | None = None) -> None:
        """End the processes of a round that has ended: of a child, or of the `owner` that the log names."""
        with self._lock:
            child = self._children.pop(round_id, None)
        if child is not None:
            end_tree(child.pid)
            child.wait()
        elif owner is not None and (pid := owner_pid(owner)) is not None:
            end_tree(pid)
        self._clear(round_id)

    def _close(self, round_id: int, child: subprocess.Popen[bytes]) -> None:
        """The process of a round has ended: if it has not said how, its round has failed, or goes on where it was killed."""
        code = child.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        resumed = self.log.get(round_id).resumed
        again = code < 0 and resumed < RESUMED
        over = GIVEN_UP if code < 0 else f"The round's process {how}."
        if self.log.abandon(round_id, STOPPED if again else over):
            logger.error("The process of round %d %s; its log says why.", round_id, how)
        found = self.log.get(round_id)
        if again and _interrupted(found):
            logger.warning("Round %d was interrupted; it goes on.", round_id)
            with suppress(StoreError):  # cancelled at this moment, or the server is being stopped
                self.go_on(round_id, resumed + 1)
        elif not found.open and not _interrupted(found):
            self._clear(round_id)

    def _clear(self, round_id: int) -> None:
        """Delete what a round that has ended for good trained; a version was moved to its place before."""
        for path in list((self.database.paths.rounds / str(round_id)).glob(WORK)):
            try:
                if path.is_dir():
                    remove(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("What round %d trained cannot be deleted (%s).", round_id, error.strerror)


def _interrupted(ended: Round) -> bool:
    """Whether its process was stopped from outside, so that it can go on."""
    return ended.status is RoundStatus.FAILED and ended.error in (STOPPED, LEFT)


def _seconds_since(moment: str | None) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds() if moment else 0.0


def device_of(name: str) -> str:
    """What "auto" means on this machine; any other name as it is."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
