"""The queue in front of the model: one question at a time, first come first served, in a process of its own.

A fresh interpreter (not a fork, and without re-importing the server's main module) with its own end of a
socket pair; see `engine`. If it dies, the running question fails with a sentence and the next one finds a new
process. Locks: `_lock` guards every attribute marked "locked" and is never held while talking to the process
or to a listener; `_sending` keeps frames whole. Neither is taken while the other is held.
"""

from __future__ import annotations

import atexit
import logging
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from medsegr.web.errors import Refusal
from medsegr.web.jobs import Event, EventKind, Job, decode, encode
from medsegr.web.process import ModelInfo, WorkerSettings, WorkerState, spawn

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]
POLL_S = 0.25
DIED = "The model's process stopped while it was answering; a new one is being started, so please ask again."
DIED_AT_START = "The model's process stopped while it was loading; the server's log may say why."
CANCELLED = "The question was cancelled."


@dataclass
class _Ticket:
    job: Job
    listener: Listener
    cancelled_at: float | None = None


class ModelWorker:
    """Owns the model's process and the waiting questions. All methods may be called from any thread."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._waiting: deque[_Ticket] = deque()  # locked
        self._running: _Ticket | None = None  # locked
        self._closing = False  # locked
        self._thread: threading.Thread | None = None  # locked
        self._state = WorkerState.STOPPED  # locked
        self._failure: tuple[str, str] | None = None  # locked
        self._info: ModelInfo | None = None  # locked
        self._process: subprocess.Popen[bytes] | None = None  # written by the dispatcher only
        self._connection: Connection | None = None  # written by the dispatcher only
        self._failed_at = 0.0

    @property
    def state(self) -> WorkerState:
        """Whether the model can answer now."""
        with self._lock:
            return self._state

    @property
    def info(self) -> ModelInfo | None:
        """The model that was last ready."""
        with self._lock:
            return self._info

    @property
    def failure(self) -> tuple[str, str] | None:
        """(kind, sentence) why loading failed, or None."""
        with self._lock:
            return self._failure

    @property
    def pid(self) -> int | None:
        """Process id of the model, while it has a process."""
        process = self._process
        return process.pid if process and process.poll() is None else None

    def start(self) -> None:
        """Begin to load the model; returns at once. Questions may be submitted without it."""
        with self._lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._dispatch, name="medsegr-worker", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def submit(self, job: Job, listener: Listener) -> int:
        """Queue `job`; returns how many questions are ahead of it. Raises `Refusal` 429 or 503.

        `listener` is called from the dispatcher's thread and must return quickly; its last event is `done` or
        `error`.
        """
        self.start()
        with self._lock:
            if self._closing:
                raise Refusal(503, "The server is shutting down.")
            if len(self._waiting) >= self.settings.max_waiting:
                raise Refusal(
                    429, f"{len(self._waiting)} questions are waiting already; please ask again later."
                )
            ahead = len(self._waiting) + (1 if self._running else 0)
            self._waiting.append(_Ticket(job, listener))
            self._wake.notify_all()
        return ahead

    def cancel(self, job_id: str) -> bool:
        """Withdraw a waiting question or stop the running one; False when it is neither."""
        connection = None
        with self._lock:
            waiting = next((t for t in self._waiting if t.job.id == job_id), None)
            if waiting:
                self._waiting.remove(waiting)
            elif self._running and self._running.job.id == job_id:
                self._running.cancelled_at = self._running.cancelled_at or time.monotonic()
                connection = self._connection
            else:
                return False
        if waiting:
            _tell(waiting, _error("Cancelled", CANCELLED))
            self._tell_places()
        elif connection:
            self._send(connection, {"do": "cancel", "id": job_id})
        return True

    def close(self) -> None:
        """Stop the process and fail what is waiting. The worker cannot be used again."""
        with self._lock:
            self._closing = True
            thread = self._thread
            self._wake.notify_all()
        process = self._process
        if process and process.poll() is None:
            process.kill()
        if thread and thread is not threading.current_thread():
            thread.join(timeout=5)
        atexit.unregister(self.close)

    # The dispatcher's thread runs everything below.

    def _dispatch(self) -> None:
        try:
            self._ensure_ready()
            while self._wait_for_work():
                if not self._ensure_ready():
                    self._fail_all_waiting()
                    continue
                with self._lock:
                    ticket = self._waiting.popleft() if self._waiting else None
                    self._running = ticket
                if ticket:
                    self._tell_places()
                    last = self._answer(ticket)
                    with self._lock:
                        self._running = None
                    _tell(ticket, last)
        finally:
            self._drop_process()
            self._fail_all_waiting()

    def _wait_for_work(self) -> bool:
        """Sleep until there is a question (True) or the worker closes (False); revive a process that died
        meanwhile.
        """
        while True:
            with self._lock:
                if not self._waiting and not self._closing:
                    self._wake.wait(timeout=1.0)
                if self._closing:
                    return False
                if self._waiting:
                    return True
                idle_death = (
                    self._state is WorkerState.READY
                    and self._process is not None
                    and self._process.poll() is not None
                )
            if idle_death:
                logger.warning("The model's process stopped while idle; starting a new one.")
                self._ensure_ready()

    def _ensure_ready(self) -> bool:
        process = self._process
        if process and process.poll() is None and self.state is WorkerState.READY:
            return True
        if self.failure and time.monotonic() - self._failed_at < self.settings.retry_after_s:
            return False
        self._drop_process()
        with self._lock:
            if self._closing:
                return False
            self._state, self._failure = WorkerState.STARTING, None
            try:
                self._process, self._connection = spawn(self.settings)
            except OSError as error:
                logger.error("The model's process cannot be started: %s", error.strerror)
        message = self._receive_first()
        with self._lock:
            if message["event"] == "ready":
                self._info = ModelInfo(message["version"], message["licence"], tuple(message["targets"]))
                self._state = WorkerState.READY
                logger.info("Model %s is ready after %.1f s.", self._info.version, message["load_ms"] / 1000)
                return True
            self._state, self._failure = WorkerState.FAILED, (message["kind"], message["sentence"])
            self._failed_at = time.monotonic()
        logger.error("The model cannot be used: %s", message["sentence"])
        self._drop_process()
        return False

    def _receive_first(self) -> dict[str, Any]:
        try:
            if self._connection:
                return decode(self._connection.recv_bytes())
        except (EOFError, OSError, ValueError):
            pass  # it died before it could say why, or its line carries nonsense
        return {"event": "failed", "kind": "died", "sentence": DIED_AT_START}

    def _answer(self, ticket: _Ticket) -> Event:
        """Have one question answered; returns its last event and passes on those before."""
        connection = self._connection
        if connection is None:
            return _error("died", DIED)
        _tell(ticket, Event(EventKind.STARTED))
        self._send(connection, {"do": "ask", "job": ticket.job.to_json()})
        try:
            while True:
                if not connection.poll(POLL_S):
                    self._kill_if_deaf(ticket)
                    continue
                message = decode(connection.recv_bytes())
                kind = EventKind(message.pop("event"))
                if kind is EventKind.DONE:
                    masks = tuple(connection.recv_bytes() for _ in range(message.pop("masks")))
                    return Event(kind, message, masks)
                if kind is EventKind.ERROR:
                    return Event(kind, message)
                _tell(ticket, Event(kind, message))
        except (EOFError, OSError, ValueError, KeyError, TypeError):  # silence, or nonsense: replace it
            with self._lock:
                self._state = WorkerState.STOPPED
            if ticket.cancelled_at:
                return _error("Cancelled", CANCELLED)
            logger.error("The model's process stopped while it was answering.")
            return _error("died", DIED)

    def _kill_if_deaf(self, ticket: _Ticket) -> None:
        since = ticket.cancelled_at
        if since and time.monotonic() - since > self.settings.cancel_grace_s and self._process:
            logger.warning("The model's process did not stop a cancelled question; it is replaced.")
            self._process.kill()

    def _fail_all_waiting(self) -> None:
        with self._lock:
            tickets = list(self._waiting)
            self._waiting.clear()
            kind, sentence = self._failure or ("died", "The server is shutting down.")
        for ticket in tickets:
            _tell(ticket, _error(kind, sentence))

    def _tell_places(self) -> None:
        with self._lock:
            offset = 1 if self._running else 0
            waiting = [(place + offset, ticket) for place, ticket in enumerate(self._waiting)]
        for place, ticket in waiting:
            _tell(ticket, Event(EventKind.QUEUED, {"place": place}))

    def _send(self, connection: Connection, message: dict[str, Any]) -> None:
        try:
            with self._sending:
                connection.send_bytes(encode(message))
        except OSError:
            pass  # the process is gone; reading from it says so

    def _drop_process(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection:
            connection.close()
        if process:
            if process.poll() is None:
                process.kill()
            process.wait()


def _error(kind: str, sentence: str) -> Event:
    return Event(EventKind.ERROR, {"kind": kind, "sentence": sentence})


def _tell(ticket: _Ticket, event: Event) -> None:
    try:
        ticket.listener(event)
    except Exception as error:  # noqa: BLE001  # a listener's defect must not stop everybody's questions
        logger.error("A listener failed with %s.", type(error).__name__)
