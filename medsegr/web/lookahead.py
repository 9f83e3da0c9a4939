"""In the server: while nobody asks, have the model look at images ahead, so that choosing the next case costs nothing.

One thread, one image at a time, at most half of the time, and only after the model has been idle for a while. A question that
comes meanwhile goes first (`worker.look` is stopped by it), and the look is tried again later.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from medsegr.choosing.chooser import Chooser
from medsegr.choosing.look import Look
from medsegr.errors import MedSegRError
from medsegr.web.errors import status_of
from medsegr.web.image_files import ImageFile
from medsegr.web.jobs import Event, EventKind, Job
from medsegr.web.requests import AskOptions, parse

logger = logging.getLogger(__name__)
CANCELLED, DIED = "Cancelled", "died"
OPTION = "looks"
OF_A_FOLDER, OF_A_PACS = 200, 20
"""Images looked at ahead by default: those of a PACS have to be fetched first."""


class Worker(Protocol):
    """What is used of `worker.ModelWorker`."""

    @property
    def idle_s(self) -> float:
        """Seconds since the last question ended; 0 while one waits or is answered, or while the model cannot answer."""
        ...

    def look(self, job: Job, listener: Callable[[Event], None]) -> bool:
        """Begin a look if the model is idle; False otherwise."""
        ...


@dataclass(frozen=True)
class Pace:
    """How eagerly it looks. `most`: images that are looked at ahead, 0 for none; times in seconds."""

    most: int = 200
    quiet_s: float = 5.0
    pause_s: float = 1.0
    list_again_s: float = 60.0


class LookOptionError(MedSegRError):
    """The option `looks` is not a number that can be used."""


def pace_of(conf: Mapping[str, str], local: bool) -> Pace:
    """The pace that `--conf looks N` asks for; 0 switches looking ahead off. Raises `LookOptionError`."""
    text = str(conf.get(OPTION, OF_A_FOLDER if local else OF_A_PACS)).strip()
    if not text.isdecimal() or len(text) > 6:
        raise LookOptionError(
            f"The option `{OPTION}` is not usable; a number of images from 0 to 999999 is expected."
        )
    return Pace(most=int(text))


class Lookahead:
    """`images` lists the ids that may be looked at (called at most once a minute), `find` gives the file behind one."""

    def __init__(
        self,
        worker: Worker,
        chooser: Chooser,
        images: Callable[[], Sequence[str]],
        find: Callable[[str], ImageFile],
        pace: Pace | None = None,
    ) -> None:
        self.worker, self.chooser, self.images, self.find = worker, chooser, images, find
        self.pace = pace or Pace()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._listed: tuple[float, list[str]] = (float("-inf"), [])
        self._died: set[str] = set()

    def start(self) -> None:
        """Begin, unless it is switched off; returns at once."""
        if self.pace.most > 0 and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="medsegr-lookahead", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End; the look that is running is left to the worker."""
        self._end.set()
        if self._thread:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        pause = self.pace.pause_s
        while not self._end.wait(pause):
            began = time.monotonic()
            try:
                busy = self.step()
            # Broad on purpose: a datastore that is away or a full disk must not end the thread; nobody waits for it.
            except Exception as error:  # noqa: BLE001
                logger.warning("Looking ahead failed (%s); it goes on in a minute.", type(error).__name__)
                pause = 60.0
                continue
            pause = max(self.pace.pause_s, time.monotonic() - began) if busy else max(self.pace.pause_s, 5.0)

    def step(self) -> bool:
        """Look at one image if the model is idle and one is left; whether there was anything to do."""
        version = self.chooser.version()
        if version is None or self.worker.idle_s < self.pace.quiet_s:
            return False
        image_id = self._next()
        if image_id is None:
            return False
        try:
            image, _ = self.find(image_id).chosen(parse(AskOptions, {}))
        except MedSegRError as error:
            if status_of(error) >= 500:  # the archive is away: it is not the image's fault
                raise
            self.chooser.looks.add(Look(image_id, version, trouble=str(error)))
            return True
        release = image.hold() if image.hold else None
        try:
            self._look(image, version)
        finally:
            if release:
                release()
        return True

    def _look(self, image: ImageFile, version: str) -> None:
        news: queue.SimpleQueue[Event] = queue.SimpleQueue()
        job = Job(f"look-{uuid.uuid4().hex}", str(image.path), question="", stack=image.reading)
        if not self.worker.look(job, news.put):
            return  # somebody was quicker
        while True:
            event = news.get()
            if event.kind is EventKind.DONE:
                self.chooser.looks.add(replace(Look.from_json(event.data["look"]), image=image.id))
                return
            if event.kind is EventKind.ERROR:
                if self._blamed(image.id, event.data["kind"]):
                    self.chooser.looks.add(Look(image.id, version, trouble=str(event.data["sentence"])))
                return

    def _blamed(self, image_id: str, kind: str) -> bool:
        """Whether an error is the image's fault. A process may end for reasons of its own, but not twice at one image."""
        if kind == CANCELLED or (kind == DIED and image_id not in self._died):
            self._died |= {image_id} if kind == DIED else set()
            return False
        return True

    def _next(self) -> str | None:
        """The first image that is wanted, in an order that is random and the same every time."""
        when, listed = self._listed
        if time.monotonic() - when > self.pace.list_again_s:
            listed = sorted(self.images(), key=lambda image: hashlib.sha256(image.encode()).digest())
            self._listed = (time.monotonic(), listed)
        wanted = self.chooser.wanted(listed, self.pace.most)
        return wanted[0] if wanted else None
