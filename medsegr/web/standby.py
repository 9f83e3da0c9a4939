"""The process of the version that was in charge before, kept ready so that a rollback need not wait for it to load."""

from __future__ import annotations

import threading

from medsegr.web.process import ModelProcess


class Standby:
    """Room for one process, of the one checkpoint that is wanted. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: str | None = None
        self._kept: ModelProcess | None = None
        self._closed = False

    @property
    def missing(self) -> str | None:
        """The checkpoint that is wanted and not there."""
        with self._lock:
            there = self._kept is not None and self._kept.alive
            return None if there or self._closed else self._wanted

    def want(self, checkpoint: str | None) -> None:
        """From now on keep this one; another that is here ends."""
        with self._lock:
            self._wanted, kept = checkpoint, self._kept
            if kept is None or kept.checkpoint == checkpoint:
                return
            self._kept = None
        kept.end()

    def take(self, checkpoint: str) -> ModelProcess | None:
        """The process of this checkpoint, which is then the caller's, if it is here and lives."""
        with self._lock:
            kept = self._kept
            if kept is None or kept.checkpoint != checkpoint:
                return None
            self._kept = None
        if kept.alive:
            return kept
        kept.end()
        return None

    def forget(self, model: ModelProcess) -> None:
        """This process is in charge again and must not end here."""
        with self._lock:
            if self._kept is model:
                self._kept = None

    def retire(self, model: ModelProcess) -> None:
        """Keep a process that nobody needs now if it is the one that is wanted; end it otherwise."""
        with self._lock:
            before = self._kept
            fits = model.info is not None and model.alive and model.checkpoint == self._wanted
            if fits and not self._closed and not (before and before.alive):
                self._kept, unneeded = model, before
            else:
                unneeded = model
        if unneeded:
            unneeded.end()

    def close(self) -> None:
        """End what is kept, and whatever comes."""
        with self._lock:
            self._closed, kept, self._kept = True, self._kept, None
        if kept:
            kept.end()
