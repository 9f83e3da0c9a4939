"""In the model's process: look at an image that nobody has asked about, and stop as soon as somebody asks.

Reading a volume can take seconds and cannot be interrupted, so a thread of its own does it. An image that was read in vain is
kept for the next try; only one at a time, and not among the images of the questions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medsegr.errors import Cancelled
from medsegr.imaging import Picture, Volume, read_image
from medsegr.web.jobs import Job
from medsegr.web.predicting import PredictorLike

POLL_S = 0.02
Key = tuple[str, int | None]


class _Reading:
    """One image being read, in a thread."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.image: Picture | Volume | None = None
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            self.image = read_image(Path(self.key[0]), stack=self.key[1])
        except Exception as error:  # noqa: BLE001  # it belongs to whoever waits
            self.error = error


class Ahead:
    """Looks at one image after the other; used by the main thread of the process only."""

    def __init__(self) -> None:
        self._reading: _Reading | None = None

    def look(self, predictor: PredictorLike, job: Job, stop: Callable[[], bool]) -> dict[str, Any]:
        """The `Look` at the job's image as plain data, without the image's id, which the server knows. Raises `Cancelled`, or
        whatever the image or the predictor make of it."""
        key = (job.image, job.stack)
        if self._reading is None or self._reading.key != key:
            if self._reading:
                self._wait(self._reading, stop)  # two at once would take the memory of two volumes
            self._reading = _Reading(key)
        reading = self._reading
        self._wait(reading, stop)
        if reading.image is None:
            self._reading = None
            raise reading.error or RuntimeError("The image was not read.")
        from medsegr.choosing.looking import (
            look,
        )  # with the first look: it brings what answering can do without

        found = look(predictor, reading.image, "", stop).to_json()
        self._reading = None
        return found

    def _wait(self, reading: _Reading, stop: Callable[[], bool]) -> None:
        while reading.thread.is_alive():
            reading.thread.join(POLL_S)
            if stop():
                raise Cancelled("The look was put off.")
