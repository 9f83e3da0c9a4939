"""The learning loop in the server: one background thread follows the version in charge, notes rounds that have ended, and
starts one when the policy says so. Routes and MONAI Label's train task start and cancel rounds here as well.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from medsegr.rounds.errors import StoreError
from medsegr.rounds.labels import LabelList
from medsegr.rounds.policy import OPTIONS, Policy, PolicyError, due
from medsegr.rounds.registry import Registry, Version
from medsegr.rounds.rounds_log import Round, RoundLog
from medsegr.rounds.starting import NotStarted, RoundStarter, device_of
from medsegr.rounds.version_files import CONFIG, digest
from medsegr.web.charge import InCharge
from medsegr.web.errors import Refusal
from medsegr.web.service import Service

logger = logging.getLogger(__name__)
FOLLOW_S, POLICY_S = 2.0, 5.0
MAX_REASON = 500
POLICY_TRIGGER, HAND_TRIGGER, SERVER = "policy", "hand", "server"


class LearningLoop:
    """Rounds, versions and the policy of one server. `checkpoint` is the one that the server was started with."""

    def __init__(
        self,
        service: Service,
        registry: Registry,
        checkpoint: Path,
        policy: Policy | None = None,
        *,
        keep_previous: bool = True,
        starter: RoundStarter | None = None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        database = service.store.database
        self.registry, self.policy = registry, policy or Policy()
        self.labels = LabelList(database, registry.base.targets)
        self.charge = InCharge(service, registry, self.labels, keep_previous=keep_previous)
        self.starter = starter or RoundStarter(database, checkpoint)
        self.log: RoundLog = self.starter.log
        self._clock = clock
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, catch_up: Callable[[], object] | None = None) -> None:
        """Begin to follow and to watch the policy; an interrupted round goes on. Returns at once. `catch_up` is done first,
        in the background.
        """
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(catch_up,), name="medsegr-learning", daemon=True
            )
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """Stop the thread, and the round that was started here."""
        self._end.set()
        self.starter.close()
        atexit.unregister(self.close)

    def start_round(self, editor: str, asked: Mapping[str, Any], trigger: str = HAND_TRIGGER) -> Round:
        """Begin a round with the policy's options, or those `asked` for (max_minutes, device, processes, reason).

        Raises `Refusal` 429 while another one is open, 409 where the model cannot be trained and 503 where no process can be
        started, `PolicyError` for an option that cannot be used.
        """
        try:
            self.registry.check_trainable()
        except StoreError as error:
            raise Refusal(409, str(error)) from error
        options = self.options(asked)
        champion = self.registry.current().name
        try:
            return self.starter.start(trigger, editor, options, champion)
        except NotStarted as error:
            raise Refusal(503, str(error)) from error
        except StoreError as error:
            raise Refusal(429, str(error)) from error

    def options(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a round as they are stored; raises `MedSegRError`."""
        reason = str(asked.get("reason") or "")
        if len(reason) > MAX_REASON:
            raise Refusal(422, f"`reason` has {len(reason)} characters; at most {MAX_REASON} are accepted.")
        names = {"max_minutes": "train_minutes", "device": "train_device", "processes": "train_processes"}
        given = {to: str(asked[name]) for name, to in names.items() if asked.get(name) not in (None, "")}
        own = self.policy
        defaults = {
            "train_minutes": str(own.max_minutes),
            "train_device": own.device,
            "train_processes": str(own.processes),
        }
        try:
            chosen = Policy.from_options({**defaults, **given})
        except PolicyError as error:
            sentence = str(error)
            for name, option in names.items():
                sentence = sentence.replace(f"`{option}`", f"`{name}`")
            raise PolicyError(sentence) from error
        return {
            "max_minutes": chosen.max_minutes,
            "device": device_of(chosen.device),
            "processes": chosen.processes,
            "reason": reason,
        }

    def cancel(self, round_id: int, editor: str) -> Round:
        """End an open round and its processes; raises `Refusal` 404 or 409."""
        try:
            self.log.get(round_id)
        except StoreError as error:
            raise Refusal(404, str(error)) from error
        try:
            return self.starter.cancel(round_id, editor)
        except StoreError as error:
            raise Refusal(409, str(error)) from error

    def state(self) -> dict[str, Any]:
        """What the viewer's panel shows: corrections since the last round that had a result, validation patients that are still
        `missing` (None: none, or not known), the `running` round or None, the `last` that ended, the version in charge, and
        whether there is one to go back to.
        """
        running = self.log.open_round()
        ended = [round_ for round_ in self.log.rounds(50) if not round_.open]
        previous = self.registry.previous()
        missing = ended[-1].decision.get("numbers", {}).get("missing") if ended else None
        return {
            "version": self.charge.version.name,
            "corrections_since": self.starter.new_corrections(judged=True),
            "missing": int(missing) if missing else None,
            "starts_after": self.policy.after_corrections or None,
            "night": self.policy.night,
            "running": {**brief(running), **_progress(running)} if running else None,
            "last": brief(ended[-1]) if ended else None,
            "previous": previous.name if previous else None,
            "can_rollback": previous is not None,
        }

    def check_policy(self) -> Round | None:
        """Start a round if the policy says so."""
        if self.log.open_round() is not None:
            return None
        reason = due(self.policy, self.starter.new_corrections(), self._clock())
        if reason is None or not self.registry.trainable:
            return None
        logger.info("A round starts: %s", reason)
        return self.start_round(SERVER, {"reason": reason}, POLICY_TRIGGER)

    def _run(self, catch_up: Callable[[], object] | None) -> None:
        if catch_up:
            self._guarded("What earlier corrections teach could not be made up for", catch_up)
        self._guarded("An interrupted round could not go on", self.starter.resume)
        asked = time.monotonic()
        while not self._end.wait(FOLLOW_S):
            self._guarded("The version in charge could not be followed", self.charge.follow)
            self._guarded("Rounds could not be looked after", self.starter.reap)
            if time.monotonic() - asked >= POLICY_S:
                asked = time.monotonic()
                self._guarded("The policy could not be checked", self.check_policy)
            self._guarded("The version before could not be held ready", self.charge.warm)

    def _guarded(self, what: str, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001  # a database that is away for a while must not end the thread
            if not self._end.is_set():
                logger.error("%s (%s).", what, type(error).__name__)


def policy_of(conf: Mapping[str, str]) -> Policy:
    """The policy of the server's options `train_after`, `train_night`, `train_minutes`, `train_device` and
    `train_processes`; raises `PolicyError`.
    """
    own = {name: conf[name] for name in OPTIONS if conf.get(name)}
    return Policy.from_options({"device": conf.get("device", "auto"), **own})


def checksum(version: Version) -> str | None:
    """A version's files as one hash, in MONAI Label's form; of the base checkpoint, of the hashes that it records."""
    recorded = version.meta.get("sha256")
    own = version.sha256 or (digest(recorded) if isinstance(recorded, dict) and recorded else None)
    return f"SHA256:{own}" if own else None


def modified(version: Version) -> int:
    """When a version's weights were written, in seconds since 1970."""
    try:
        return int((version.directory / CONFIG).stat().st_mtime)
    except OSError:
        return 0


def _progress(round_: Round) -> dict[str, Any]:
    told = round_.progress
    return {
        "phase": told.get("phase", "starting"),
        "done": told.get("done", 0),
        "total": told.get("total", 0),
    }


def brief(round_: Round) -> dict[str, Any]:
    """A round without its data."""
    return {
        "id": round_.id,
        "status": round_.status.value,
        "trigger": round_.trigger,
        "created": round_.created,
        "started": round_.started,
        "finished": round_.finished,
        "progress": round_.progress,
        "champion": round_.champion,
        "challenger": round_.challenger,
        "sentence": sentence_of(round_),
    }


def sentence_of(round_: Round) -> str:
    """How a round ended, or how far it is, in one sentence. What kept a version from taking charge goes before the gate's
    word."""
    said = round_.error or round_.decision.get("sentence")
    if said:
        return str(said)
    progress = round_.progress
    if round_.open and progress:
        return f"Round {round_.id}: {progress['phase']}, {progress['done']} of {progress['total']}."
    return f"Round {round_.id} is {round_.status.value}."
