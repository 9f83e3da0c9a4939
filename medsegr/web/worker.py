"""The queue in front of the model: one question at a time, first come first served, in a process of its own.

A fresh interpreter (not a fork, and without re-importing the server's main module) with its own end of a
socket pair; see `engine`. If it dies, the running question fails with a sentence and the next one finds a new
process. Another checkpoint takes over without a pause: its process is loaded beside the old one (`prepare`), and what is
asked after `swap` goes there, while the running question ends where it began.

Locks: `_lock` guards every attribute marked "locked" and is never held while talking to a process or to a listener;
`_preparing` lets one checkpoint be loaded at a time and is taken before `_lock`.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from medsegr.web.errors import Refusal, revive
from medsegr.web.jobs import Event, EventKind, Job, decode
from medsegr.web.process import ModelFailed, ModelInfo, ModelProcess, WorkerSettings, WorkerState
from medsegr.web.standby import Standby

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]
POLL_S = 0.25
DIED = "The model's process stopped while it was answering; a new one is being started, so please ask again."
CANCELLED = "The question was cancelled."
ASK = {False: "ask", True: "score"}
"""What the process is told to do with a question, and with a look ahead."""
CLOSING = "The server is shutting down."


@dataclass
class _Ticket:
    job: Job
    listener: Listener
    cancelled_at: float | None = None
    look: bool = False
    """Not a question but a look ahead, which makes way for questions."""


class ModelWorker:
    """Owns the model's process and the waiting questions. All methods may be called from any thread."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings  # locked; of the checkpoint in charge
        self._lock = threading.Lock()
        self._preparing = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._waiting: deque[_Ticket] = deque()  # locked
        self._running: _Ticket | None = None  # locked
        self._closing = False  # locked
        self._thread: threading.Thread | None = None  # locked
        self._state = WorkerState.STOPPED  # locked
        self._failure: tuple[str, str] | None = None  # locked
        self._info: ModelInfo | None = None  # locked
        self._model: ModelProcess | None = None  # locked; written by the dispatcher only
        self._next: ModelProcess | None = None  # locked; takes over before the next question
        self._loading: ModelProcess | None = None  # locked; in `prepare`
        self._idle_since: float | None = None  # locked
        self._standby = Standby()
        self._failed_at = 0.0

    @property
    def state(self) -> WorkerState:
        """Whether the model can answer now."""
        with self._lock:
            return self._state

    @property
    def info(self) -> ModelInfo | None:
        """The model that answers what is asked from now on, or the one that was last ready."""
        with self._lock:
            return self._info

    @property
    def failure(self) -> tuple[str, str] | None:
        """(kind, sentence) why loading failed, or None."""
        with self._lock:
            return self._failure

    @property
    def checkpoint(self) -> str:
        """The directory of the model that answers what is asked from now on."""
        with self._lock:
            return self.settings.checkpoint

    @property
    def pid(self) -> int | None:
        """Process id of the model, while it has a process."""
        model = self._model
        return model.pid if model else None

    @property
    def idle_s(self) -> float:
        """Seconds since the last question ended; 0 while one waits or is answered, or while the model cannot answer."""
        with self._lock:
            asked = any(not ticket.look for ticket in (*self._waiting, *filter(None, [self._running])))
            if asked or self._state is not WorkerState.READY or self._idle_since is None:
                return 0.0
            return time.monotonic() - self._idle_since

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
                raise Refusal(503, CLOSING)
            if len(self._waiting) >= self.settings.max_waiting:
                raise Refusal(
                    429, f"{len(self._waiting)} questions are waiting already; please ask again later."
                )
            looks = [t.job.id for t in (*self._waiting, *filter(None, [self._running])) if t.look]
            ahead = len(self._waiting) + (1 if self._running else 0) - len(looks)
            self._waiting.append(_Ticket(job, listener))
            self._wake.notify_all()
        for look in looks:
            self.cancel(look)
        return ahead

    def look(self, job: Job, listener: Listener) -> bool:
        """Have the model look at an image ahead if it is idle; False otherwise. A question that comes meanwhile cancels it."""
        with self._lock:
            busy = self._closing or self._running or self._waiting or self._next
            if busy or self._state is not WorkerState.READY:
                return False
            self._waiting.append(_Ticket(job, listener, look=True))
            self._wake.notify_all()
        return True

    def cancel(self, job_id: str) -> bool:
        """Withdraw a waiting question or stop the running one; False when it is neither."""
        model = None
        with self._lock:
            waiting = next((t for t in self._waiting if t.job.id == job_id), None)
            if waiting:
                self._waiting.remove(waiting)
            elif self._running and self._running.job.id == job_id:
                self._running.cancelled_at = self._running.cancelled_at or time.monotonic()
                model = self._model
            else:
                return False
        if waiting:
            _tell(waiting, _error("Cancelled", CANCELLED))
            self._tell_places()
        elif model:
            model.send({"do": "cancel", "id": job_id})
        return True

    def prepare(self, checkpoint: str) -> ModelProcess:
        """A process of this directory that is ready, for `swap` or `discard`: one that is at hand already, or a new one.

        Blocks while it loads; questions go on meanwhile. Raises `MedSegRError`.
        """
        with self._preparing:
            with self._lock:
                if self._closing:
                    raise Refusal(503, CLOSING)
                for model in (self._model, self._next):
                    if model and model.checkpoint == checkpoint and model.info and model.alive:
                        return model
                if kept := self._standby.take(checkpoint):
                    return kept
                settings = replace(self.settings, checkpoint=checkpoint)
                try:
                    model = self._loading = ModelProcess(settings)
                except ModelFailed as error:
                    raise revive(error.kind, error.sentence) from error
            try:
                model.wait_until_ready()
            except ModelFailed as error:
                raise revive(error.kind, error.sentence) from error
            finally:
                with self._lock:
                    self._loading = None
            return model

    def swap(self, model: ModelProcess) -> None:
        """What is asked from now on is answered by a model that `prepare` gave; the one before ends after its question."""
        self._standby.forget(model)
        with self._lock:
            closing = self._closing
            if not closing:
                unused, self._next = self._next, None if model is self._model else model
                unused = None if unused is model else unused
                self.settings, self._info = model.settings, model.info
                self._state, self._failure = WorkerState.READY, None
                self._idle_since = time.monotonic()
                look = self._running.job.id if self._running and self._running.look else None
                self._wake.notify_all()
        if closing:
            model.end()
            raise Refusal(503, CLOSING)
        if unused:
            self._standby.retire(unused)
        if look:
            self.cancel(look)
        self.start()

    def discard(self, model: ModelProcess) -> None:
        """A model that `prepare` gave is not wanted after all."""
        with self._lock:
            used = model is self._model or model is self._next
        if not used:
            self._standby.retire(model)

    def hold(self, checkpoint: str | None) -> None:
        """Keep the process of this directory, and of no other, when another takes over: going back to it is then a matter
        of milliseconds. Loads nothing; see `warm`.
        """
        self._standby.want(checkpoint)

    def warm(self) -> None:
        """Load what is to be held, if it is not at hand; blocks. Raises `MedSegRError`."""
        with self._preparing:
            wanted = self._standby.missing
            if wanted is not None:
                self.discard(self.prepare(wanted))

    def close(self) -> None:
        """Stop the processes and fail what is waiting. The worker cannot be used again."""
        with self._lock:
            self._closing = True
            thread, following = self._thread, self._next
            self._next = None
            models = [model for model in (self._model, self._loading) if model]
            self._wake.notify_all()
        for model in models:
            model.kill()
        if following:
            following.end()
        self._standby.close()
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
                ticket = self._take()
                if ticket:
                    self._tell_places()
                    last = self._answer(ticket)
                    with self._lock:
                        self._running = None
                        if not ticket.look:
                            self._idle_since = time.monotonic()
                    _tell(ticket, last)
        finally:
            self._drop_model()
            self._fail_all_waiting()

    def _wait_for_work(self) -> bool:
        """Sleep until there is a question (True) or the worker closes (False); revive a process that died
        meanwhile, or let the next one take over.
        """
        while True:
            with self._lock:
                if not self._waiting and not self._closing and not self._next:
                    self._wake.wait(timeout=1.0)
                if self._closing:
                    return False
                if self._waiting:
                    return True
                following, model = self._next is not None, self._model
                died = self._state is WorkerState.READY and model is not None and not model.alive
                died = died or self._state is WorkerState.STOPPED  # while it was answering
            if following:
                self._adopt()
            elif died:
                logger.warning("The model's process stopped; starting a new one.")
                self._ensure_ready()

    def _take(self) -> _Ticket | None:
        """The next question, which is then running; None if there is none or another model takes over first."""
        with self._lock:
            if self._next is None and self._waiting and not self._closing:
                self._running = self._waiting.popleft()
                return self._running
        return None

    def _adopt(self) -> None:
        """Let the model that was swapped in take over from the one that answered until now."""
        with self._lock:
            new, self._next = self._next, None
            old = self._model
            if new:
                self._model, self._info, self._state = new, new.info, WorkerState.READY
        if new:
            logger.info("Model %s answers from now on.", new.info.version if new.info else "?")
            if old:
                self._standby.retire(old)

    def _ensure_ready(self) -> bool:
        self._adopt()
        model = self._model
        if model and model.alive and self.state is WorkerState.READY:
            return True
        if self.failure and time.monotonic() - self._failed_at < self.settings.retry_after_s:
            return False
        self._drop_model()
        try:
            with self._lock:
                if self._closing:
                    return False
                self._state, self._failure = WorkerState.STARTING, None
                model = self._model = ModelProcess(self.settings)
            info = model.wait_until_ready()
        except ModelFailed as error:
            self._drop_model()
            with self._lock:
                if self._next is None:
                    self._state, self._failure = WorkerState.FAILED, (error.kind, error.sentence)
                    self._failed_at = time.monotonic()
            logger.error("The model cannot be used: %s", error.sentence)
            return False
        with self._lock:
            if self._next is None:  # else another one was swapped in meanwhile
                self._info, self._state = info, WorkerState.READY
                self._idle_since = time.monotonic()
        logger.info("Model %s is ready after %.1f s.", info.version, model.load_s)
        return True

    def _answer(self, ticket: _Ticket) -> Event:
        """Have one question answered; returns its last event and passes on those before."""
        model = self._model
        if model is None:
            return _error("died", DIED)
        _tell(ticket, Event(EventKind.STARTED))
        model.send({"do": ASK[ticket.look], "job": ticket.job.to_json()})
        connection = model.connection
        try:
            while True:
                if not connection.poll(POLL_S):
                    self._kill_if_deaf(ticket, model)
                    continue
                message = decode(connection.recv_bytes())
                kind = EventKind(message.pop("event"))
                if kind is EventKind.DONE:
                    masks = tuple(connection.recv_bytes() for _ in range(message.pop("masks")))
                    return Event(kind, message | _who(model), masks)
                if kind is EventKind.ERROR:
                    return Event(kind, message)
                _tell(ticket, Event(kind, message))
        except (EOFError, OSError, ValueError, KeyError, TypeError):  # silence, or nonsense: replace it
            with self._lock:
                if self._next is None:
                    self._state = WorkerState.STOPPED
            self._drop_model()
            if ticket.cancelled_at:
                return _error("Cancelled", CANCELLED)
            logger.error("The model's process stopped while it was answering.")
            return _error("died", DIED)

    def _kill_if_deaf(self, ticket: _Ticket, model: ModelProcess) -> None:
        since = ticket.cancelled_at
        if since and time.monotonic() - since > self.settings.cancel_grace_s:
            logger.warning("The model's process did not stop a cancelled question; it is replaced.")
            model.kill()

    def _fail_all_waiting(self) -> None:
        with self._lock:
            tickets = list(self._waiting)
            self._waiting.clear()
            kind, sentence = self._failure or ("died", CLOSING)
        for ticket in tickets:
            _tell(ticket, _error(kind, sentence))

    def _tell_places(self) -> None:
        with self._lock:
            offset = 1 if self._running and not self._running.look else 0
            asked = [ticket for ticket in self._waiting if not ticket.look]
        for place, ticket in enumerate(asked, start=offset):
            _tell(ticket, Event(EventKind.QUEUED, {"place": place}))

    def _drop_model(self) -> None:
        with self._lock:
            model, self._model = self._model, None
        if model:
            model.end()


def _who(model: ModelProcess) -> dict[str, str]:
    """Which model an answer came from, whoever is in charge by now."""
    info = model.info
    return {"model_version": info.version, "weights_licence": info.licence} if info else {}


def _error(kind: str, sentence: str) -> Event:
    return Event(EventKind.ERROR, {"kind": kind, "sentence": sentence})


def _tell(ticket: _Ticket, event: Event) -> None:
    try:
        ticket.listener(event)
    except Exception as error:  # noqa: BLE001  # a listener's defect must not stop everybody's questions
        logger.error("A listener failed with %s.", type(error).__name__)
