"""Images that a clinician does not want to be offered again, and images that somebody has just opened."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from medsegr.rounds.database import now
from medsegr.rounds.errors import StoreError


class Skips:
    """Skipped images, in a file of JSON lines: the last line about an image counts. A skip holds for everybody until it is
    taken back. Thread-safe."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._images = _read(file)

    def images(self) -> frozenset[str]:
        """Those that are skipped now."""
        with self._lock:
            return frozenset(self._images)

    def set(self, image: str, editor: str, skipped: bool = True) -> None:
        """Skip an image, or take that back; on the disk when this returns. Raises `StoreError`."""
        line = json.dumps({"image": image, "editor": editor, "created": now(), "skipped": skipped})
        with self._lock:
            try:
                self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self.file.open("a", encoding="utf-8") as file:
                    file.write("\n" + line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StoreError(
                    f"The skip could not be written ({error.strerror}); a writable state folder is expected."
                ) from error
            (self._images.add if skipped else self._images.discard)(image)


class Opened:
    """Images that were offered or opened lately, by anybody. In memory: a restart forgets them, and `history.asked_since` does
    not. Thread-safe."""

    def __init__(self, minutes: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes = minutes
        self._clock, self._lock = clock, threading.Lock()
        self._when: dict[str, float] = {}

    def note(self, image: str) -> None:
        """It is open now."""
        with self._lock:
            self._when[image] = self._clock()

    def forget(self, image: str) -> None:
        """It was not opened after all."""
        with self._lock:
            self._when.pop(image, None)

    def images(self) -> frozenset[str]:
        """Those opened within the last `minutes`."""
        oldest = self._clock() - 60 * self.minutes
        with self._lock:
            self._when = {image: when for image, when in self._when.items() if when > oldest}
            return frozenset(self._when)


def _read(file: Path) -> set[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return set()
    found: set[str] = set()
    for line in filter(None, lines):
        try:
            row = json.loads(line)
            image, skipped = str(row["image"]), bool(row["skipped"])
        except (ValueError, TypeError, KeyError):
            continue  # cut off by a crash
        (found.add if skipped else found.discard)(image)
    return found
