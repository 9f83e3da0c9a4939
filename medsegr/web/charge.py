"""Keep the server on the version in charge: by request (promote, go back), and when a round or the command line put another
one in charge. The model is loaded first and answers from the moment that the registry says so; nothing restarts.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from medsegr.errors import CheckpointError, MedSegRError
from medsegr.rounds.audit import SERVER
from medsegr.rounds.labels import LabelList
from medsegr.rounds.registry import ChargeChanged, Registry, Version
from medsegr.web.checkpoints import MAX_TARGETS
from medsegr.web.errors import Refusal
from medsegr.web.service import Service

logger = logging.getLogger(__name__)
RETRY_S, TRIES = 30.0, 3
NOTHING_BEFORE = "No version was in charge before this one, so there is none to go back to."


@dataclass(frozen=True)
class _Failures:
    """How often in a row a version could not be loaded, and when to try again."""

    name: str = ""
    times: int = 0
    again_at: float = 0.0

    def again(self, name: str) -> _Failures:
        """One more, just now, of the version `name`."""
        times = self.times + 1 if self.name == name else 1
        return _Failures(name, times, time.monotonic() + RETRY_S)


class InCharge:
    """Ties the service's model and labels to the registry. All methods may be called from any thread; `keep_previous` has
    the version before held ready, so that going back takes no time.
    """

    def __init__(
        self, service: Service, registry: Registry, labels: LabelList, *, keep_previous: bool = True
    ) -> None:
        self.service, self.registry, self.labels = service, registry, labels
        self.keep_previous = keep_previous
        self._lock = threading.Lock()
        self._failed = _Failures()
        self._not_held = _Failures()  # of the learning loop's thread
        self._version = registry.base
        self._update_labels()

    @property
    def version(self) -> Version:
        """The version that answers what is asked from now on."""
        answering, known = Path(self.service.worker.checkpoint), self._version
        if known.directory != answering:
            versions = self.registry.versions()
            known = next((v for v in reversed(versions) if v.directory == answering), versions[0])
            self._version = known
        return known

    def promote(self, name: str, editor: str, reason: str) -> Version:
        """Load a version and put it in charge; raises `MedSegRError`, and then nothing has changed."""
        with self._lock:
            version = self.registry.get(name)
            if problem := self.registry.verify(name):
                raise Refusal(409, problem)
            worker = self.service.worker
            worker.hold(str(self.registry.current().directory) if self.keep_previous else None)
            model = worker.prepare(str(version.directory))
            try:
                self.registry.promote(name, editor, reason)
            except BaseException:
                worker.discard(model)
                raise
            worker.swap(model)
            self._update_labels()
            return version

    def rollback(self, editor: str, reason: str) -> Version:
        """Put the version in charge that was before; raises `MedSegRError`, and then nothing has changed. Takes no time where it
        answers still, because `follow` is loading the one that took charge: that is then not switched to.
        """
        with self._lock:
            version = self.registry.previous()
            if version is None:
                raise Refusal(409, NOTHING_BEFORE)
            worker = self.service.worker
            answers = worker.checkpoint == str(version.directory) and self.service.unready() is None
            model = None if answers else worker.prepare(str(version.directory))
            try:
                self.registry.rollback(editor, reason, expected=version.name)
            except BaseException as error:
                if model is not None:
                    worker.discard(model)
                if isinstance(error, ChargeChanged):
                    raise Refusal(409, str(error)) from error
                raise
            if model is not None:
                worker.swap(model)
            self._update_labels()
            return version

    def follow(self) -> None:
        """Switch to the version that the registry names, if it is another one. One that cannot be loaded, or whose process
        died three times, is not left in charge: its nearest whole ancestor is. Others may put another one in charge while it
        loads, which then does not answer.
        """
        with self._lock:
            version = self.registry.current()
            worker = self.service.worker
            if str(version.directory) == worker.checkpoint:
                failure = worker.failure
                if failure and failure[0] == "CheckpointError" and version.number:
                    self.registry.fall_back(version.name, failure[1])
                return
            if self._failed.name == version.name and time.monotonic() < self._failed.again_at:
                return
            worker.hold(worker.checkpoint if self.keep_previous else None)
        problem = self.registry.verify(version.name) if version.number else None
        try:
            if problem:
                raise Refusal(409, problem)
            model = worker.prepare(str(version.directory))  # takes long, and a rollback does not wait for it
        except MedSegRError as error:
            logger.error("Version %s does not take charge: %s", version.name, error)
            with self._lock:
                self._failed = self._failed.again(version.name)
                # A process that was killed, by a server that stops for one, says nothing about the version.
                if problem or isinstance(error, CheckpointError) or self._failed.times >= TRIES:
                    self.registry.fall_back(version.name, str(error))
            return
        with self._lock:
            try:
                current = self.registry.current()
            except BaseException:
                worker.discard(model)
                raise
            self._failed = _Failures()
            if current.name == version.name and worker.checkpoint != str(version.directory):
                worker.swap(model)
                self._update_labels()
            else:
                worker.discard(model)

    def warm(self) -> None:
        """Hold the version ready that a rollback would go back to; blocks while it loads. One that cannot be loaded is tried
        again after a while.
        """
        previous = self.registry.previous() if self.keep_previous else None
        with self._lock:
            self.service.worker.hold(str(previous.directory) if previous else None)
        if previous is None or self.service.unready() is not None:
            return
        if self._not_held.name == previous.name and time.monotonic() < self._not_held.again_at:
            return
        try:
            self.service.worker.warm()
        except MedSegRError as error:
            logger.error("Version %s is not held ready: %s", previous.name, error)
            self._not_held = self._not_held.again(previous.name)

    def _update_labels(self) -> None:
        """Show clients every label up to the last that a version in charge knew at some time: ids never change, the list has
        no gaps, and a label that was shown stays.
        """
        versions = self.registry.ever_in_charge()
        known = {name.casefold(): name for version in versions for name in version.targets}
        for name in known.values():
            self.labels.add(name, {}, SERVER)
        ids = self.labels.ids()
        shown = {id_: name for name, id_ in ids.items() if name.casefold() in known}
        last = min(max(shown, default=0), MAX_TARGETS)
        names = {id_: name for name, id_ in ids.items()}
        self.service.targets = tuple(names.get(id_, f"(unused {id_})") for id_ in range(1, last + 1))
