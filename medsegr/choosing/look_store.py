"""Looks on disk: one file of JSON lines for each model version, all of it in memory while the server runs.

A file and not a table, since nothing here is worth keeping: looks are made anew by any model at any time, they grow by one line
at a time from one writer, and a line that a crash cut off is simply looked at again. They need no migration and no backup, and
leave the clinic's database to what clinicians said.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from medsegr.choosing.look import Look

logger = logging.getLogger(__name__)
KEPT = 3
"""Versions whose looks stay on the disk, so that a rollback finds its own."""


class LookStore:
    """Thread-safe access to the looks under `folder`, which is created when the first one is added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._version: str | None = None
        self._looks: dict[str, Look] = {}

    def looks(self, version: str | None) -> Mapping[str, Look]:
        """What this version has looked at, by image: a copy. Another version's looks say nothing about this one."""
        with self._lock:
            if version is None:
                return {}
            self._open(version)
            return dict(self._looks)

    def add(self, look: Look) -> None:
        """Keep a look; a disk that is full costs no more than looking again after a restart."""
        with self._lock:
            self._open(look.version)
            self._looks[look.image] = look
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self._file(look.version).open("a", encoding="utf-8") as file:
                    file.write("\n" + json.dumps(look.to_json(), allow_nan=False))
            except OSError as error:
                logger.warning("A look could not be written (%s).", error.strerror)

    def _open(self, version: str) -> None:
        if version == self._version:
            return
        self._version, self._looks = version, _read(self._file(version), version)
        files = sorted(self.folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in [file for file in files if file != self._file(version)][KEPT - 1 :]:
            file.unlink(missing_ok=True)

    def _file(self, version: str) -> Path:
        return self.folder / f"{hashlib.sha256(version.encode()).hexdigest()[:16]}.jsonl"


def _read(file: Path, version: str) -> dict[str, Look]:
    """The last look at each image; lines that a crash cut off or another program wrote are left out."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return {}
    found: dict[str, Look] = {}
    for line in filter(None, lines):
        try:
            look = Look.from_json(json.loads(line))
        except (ValueError, TypeError, KeyError, IndexError):
            continue
        if look.version == version:
            found[look.image] = look
    return found
