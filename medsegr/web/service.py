"""Ask a question about an image: store the turn, queue it, and turn what the model says into the reply that
clients get.

Used by the routes (which await) and by MONAI Label's infer task (which blocks). Events reach listeners from
other threads.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from medsegr.errors import Cancelled, MedSegRError
from medsegr.rounds.store import NewTurn, StoredMask, Turn, TurnStatus, TurnStore
from medsegr.web.errors import Refusal, revive
from medsegr.web.image_files import ImageFile
from medsegr.web.jobs import Event, EventKind, Job
from medsegr.web.masks import Geometry, extension_for, fixed_values, flatten, label_names, unpack, write
from medsegr.web.process import WorkerState
from medsegr.web.requests import AskOptions
from medsegr.web.worker import ModelWorker

logger = logging.getLogger(__name__)
NAMELESS = (
    "What was outlined has a name that is not among this server's labels, so a map with their fixed ids cannot "
    "show it; ask in other words, or by `POST /medsegr/ask`."
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished reply: `params` as clients get them, and each finding's whole mask in packed form."""

    turn_id: str
    params: dict[str, Any]
    packed: tuple[bytes, ...]
    geometry: Geometry

    def label_map(self, values: Sequence[int | None]) -> NDArray[np.uint8]:
        """The findings flattened into one map; see `masks.flatten`."""
        masks = [unpack(packed, self.geometry.shape) for packed in self.packed]
        return flatten(masks, values, self.geometry.shape)


@dataclass(frozen=True, eq=False)
class Update:
    """News about a turn. `outcome` comes with `done`, `error` with `error`; both end it."""

    kind: EventKind
    data: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    error: MedSegRError | None = None

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.kind in (EventKind.DONE, EventKind.ERROR)


Listener = Callable[[Update], None]


class Service:
    """The one object behind the routes. `targets` are the names of the fixed labels, in the order of their ids from 1; the
    list grows when a version that knows more takes charge.
    """

    def __init__(self, worker: ModelWorker, store: TurnStore, targets: Sequence[str]) -> None:
        self.worker, self.store, self.targets = worker, store, tuple(targets)
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="medsegr-store")

    def submit(
        self,
        options: AskOptions,
        image: ImageFile,
        listener: Listener,
        *,
        one_slice: bool = False,
        editor: str = "anonymous",
    ) -> str:
        """Store and queue a question; returns the turn's id. `listener` hears everything that follows."""
        image, slices = image.chosen(options)
        place = {"image": image.id, "stack": image.n}
        asked = {
            "stack": image.n,
            "instance": options.instance or None,
            "frame": options.frame,
            "slices": options.slices,
            "points": options.points,
            "box": options.box,
            "one_slice": one_slice,
        }
        turn_id = self.store.add(
            NewTurn(image.id, options.question, options.turns, editor, options.client_id or None, asked)
        )
        job = Job(
            id=turn_id,
            image=str(image.path),
            question=options.question,
            history=tuple((t.question, t.answer) for t in options.history),
            stack=image.reading,
            slices=slices,
            points=options.points,
            box=options.box,
            max_new_tokens=options.max_new_tokens,
            one_slice=one_slice,
        )
        queued = threading.Event()

        def hear(event: Event) -> None:
            queued.wait(1.0)  # an idle model may begin before `submit` returns, but "queued" is told first
            self._hear(turn_id, event, tell, place)

        release = image.hold() if image.hold else None

        def tell(update: Update) -> None:
            if update.last and release:
                release()  # the files may go
            listener(update)

        try:
            ahead = self.worker.submit(job, hear)
        except MedSegRError as error:
            if release:
                release()
            self.store.close(turn_id, TurnStatus.FAILED, str(error))
            raise
        try:
            listener(Update(EventKind.QUEUED, {"turn_id": turn_id, "place": ahead}))
        finally:
            queued.set()
        return turn_id

    def ask(
        self, options: AskOptions, image: ImageFile, *, one_slice: bool = False, editor: str = "anonymous"
    ) -> Outcome:
        """Block until the question is answered; raises `MedSegRError`."""
        updates: queue.SimpleQueue[Update] = queue.SimpleQueue()
        self.submit(options, image, updates.put, one_slice=one_slice, editor=editor)
        while True:
            update = updates.get()
            if update.outcome:
                return update.outcome
            if update.error:
                raise update.error

    def cancel(self, turn_id: str) -> Turn:
        """Withdraw an open question; raises `StoreError` for an unknown turn, `Refusal` 409 for a finished
        one.
        """
        turn = self.store.get(turn_id)
        if not self.worker.cancel(turn_id):
            turn = self.store.get(turn_id)
            raise Refusal(
                409,
                f"This turn is {turn.status.value}; only an open question can be cancelled.",
            )
        return turn

    def mask(self, turn_id: str, n: int) -> StoredMask:
        """The whole mask of finding `n`; raises `StoreError`."""
        return self.store.mask(turn_id, n)

    def write_map(
        self, outcome: Outcome, image: ImageFile, folder: Path, asked: str | None, *, fixed: bool
    ) -> Path:
        """Write the label map that stock clients read: fixed ids for those that never see the reply, else
        1..N. Raises `Refusal` 422 when nothing that was found has a fixed id: an empty map would say "not present".
        """
        labels = [finding["label"] for finding in outcome.params["findings"]]
        values: list[int | None] = list(
            fixed_values(labels, self.targets) if fixed else range(1, len(labels) + 1)
        )
        if None in values:
            left_out = values.count(None)
            logger.warning(
                "%d of %d findings have no fixed id and are not in the map.", left_out, len(values)
            )
            if left_out == len(values):
                raise Refusal(422, NAMELESS)
        extension = extension_for(asked, image.path, outcome.geometry)
        path = folder / f"{outcome.turn_id}{extension}"
        write(path, outcome.label_map(values), outcome.geometry, image.path)
        return path

    def unready(self) -> str | None:
        """Why questions cannot be answered now, in one sentence, or None."""
        state, failure = self.worker.state, self.worker.failure
        if failure:
            return failure[1]
        return (
            None if state is WorkerState.READY else f"The model is {state.value}; it will be ready shortly."
        )

    def close(self) -> None:
        """Stop the model and finish writing."""
        self.worker.close()
        self._finisher.shutdown()
        self.store.dispose()

    def _hear(self, turn_id: str, event: Event, listener: Listener, place: dict[str, Any]) -> None:
        """Called from the worker's thread; anything slow is handed on, in order, so that the next question
        can begin.
        """
        if event.kind in (EventKind.DONE, EventKind.ERROR):
            self._finisher.submit(self._record, turn_id, event, listener, place)
            return
        if event.kind is EventKind.STARTED:
            self._finisher.submit(self.store.start, turn_id)
        listener(Update(event.kind, {"turn_id": turn_id, **event.data}))

    def _record(self, turn_id: str, event: Event, listener: Listener, place: dict[str, Any]) -> None:
        try:
            if event.kind is EventKind.ERROR:
                raise revive(event.data["kind"], event.data["sentence"])
            outcome = self._finish(turn_id, event, place)
        except MedSegRError as error:
            status = TurnStatus.CANCELLED if isinstance(error, Cancelled) else TurnStatus.FAILED
            with suppress(SQLAlchemyError):  # the client must hear of it even if it cannot be stored
                self.store.close(turn_id, status, str(error))
            listener(Update(EventKind.ERROR, {"turn_id": turn_id}, error=error))
            return
        except Exception as error:  # noqa: BLE001  # a full disk, for one: the client must hear of it
            failure = Refusal(500, f"The reply could not be stored ({type(error).__name__}).")
            with suppress(SQLAlchemyError):
                self.store.close(turn_id, TurnStatus.FAILED, str(failure))
            listener(Update(EventKind.ERROR, {"turn_id": turn_id}, error=failure))
            return
        for finding in outcome.params["findings"]:
            listener(Update(EventKind.FINDING, finding))
        listener(Update(EventKind.DONE, outcome.params, outcome=outcome))

    def _finish(self, turn_id: str, event: Event, place: dict[str, Any]) -> Outcome:
        data = event.data
        # Of the process that answered, not of the model in charge: another may have taken over meanwhile.
        version, licence = data.get("model_version", "unknown"), data.get("weights_licence", "unknown")
        geometry = Geometry.from_json(data["geometry"])
        findings = [{"n": n, "value": n, **finding} for n, finding in enumerate(data["findings"], start=1)]
        self.store.finish(
            turn_id,
            answer=data["text"],
            findings=findings,
            model_version=version,
            latencies=data["latencies"],
            masks=event.masks,
            shape=geometry.shape,
            geometry=data["geometry"],
        )
        params = {
            "turn_id": turn_id,
            **place,
            "answer": data["text"],
            "outcome": data["outcome"],
            "findings": findings,
            "label_names": label_names([finding["label"] for finding in findings]),
            "model_version": version,
            "weights_licence": licence,
            "latencies": data["latencies"],
        }
        return Outcome(turn_id, params, event.masks, geometry)
