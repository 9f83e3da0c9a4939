"""Kill, start again where needed, and look: one `Kill` a time, at an instant that the seed decides within a phase."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from medsegr.errors import MedSegRError
from medsegr.rounds.tables import RoundStatus

from .checking import Inspector
from .clinic import Clinic, Phase, Refused
from .server import BASE, Server, Target

TARGETS = {
    Phase.TRAINING: (Target.TRAINER, Target.ALL, Target.SERVER, Target.MODEL),
    Phase.PROMOTION: (Target.ALL, Target.SERVER, Target.MODEL),
    Phase.ROLLBACK: (Target.SERVER, Target.ALL, Target.MODEL),
    Phase.TURN: (Target.MODEL, Target.ALL, Target.SERVER),
    Phase.CORRECTION: (Target.ALL, Target.SERVER, Target.MODEL),
}
GUESS_S = {
    Phase.TURN: 1.0, Phase.CORRECTION: 0.2, Phase.PROMOTION: 3.0, Phase.ROLLBACK: 0.1,
}  # fmt: skip
"""How long a phase lasts, until it has been seen."""
BEYOND = 1.1
"""An instant may lie a little behind the usual end: what follows the reply is to be hit as well."""
PATIENCE_S = 600.0
"""Until the clinic gets to a phase, a version is followed, or the last round ends: seconds, if the machine is free."""
ASKS = 6
"""Of questions that may fail because a process has just been killed: the server says that one should ask again."""
LAST_PART = "asking the challenger"
"""The last phase that a round tells of; the version follows it."""
THOROUGH = 10
"""Every so many kills all files are read."""


@dataclass
class Kill:
    """One kill and what was found after it. `hit` says whether the phase was still going on at that instant."""

    phase: Phase
    target: Target
    late: bool = False
    """Of training: in the last part of a round, where a version is registered and takes charge."""
    delay_s: float = 0.0
    hit: bool = False
    round_phase: str = ""
    ready_s: float = 0.0
    lost: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "phase": self.phase.value, "target": self.target.value}


def plan(kills: int, seed: int) -> list[Kill]:
    """Every phase equally often, within it every target in turn, in an order that `seed` decides."""
    phases = list(Phase)
    drawn = []
    for n in range(kills):
        phase, turn = phases[n % len(phases)], n // len(phases)
        late = phase is Phase.TRAINING and turn // len(TARGETS[phase]) % 2 == 1
        drawn.append(Kill(phase, TARGETS[phase][turn % len(TARGETS[phase])], late))
    random.Random(seed).shuffle(drawn)
    return drawn


class Killer:
    """Works through a plan; the server runs and the clinic works when it begins."""

    def __init__(self, server: Server, clinic: Clinic, checkpoint: Path, seed: int) -> None:
        self.server, self.clinic, self.checkpoint = server, clinic, checkpoint
        self._rng = random.Random(seed)
        self._round_s, self._last_s = 0.0, 0.0
        self._number = 0

    def watch_a_round(self) -> None:
        """Let one round run to its end, to know how long it takes on this machine. Raises `MedSegRError`."""
        end = time.monotonic() + PATIENCE_S
        self.clinic.wanted = Phase.TRAINING
        while (running := self._running()) is None and time.monotonic() < end:
            time.sleep(0.05)
        self.clinic.wanted = None
        began = last = time.monotonic()
        while running:
            if running["phase"] != LAST_PART:
                last = time.monotonic()
            time.sleep(0.1)
            running = self._running()
            if time.monotonic() > end:
                raise MedSegRError(f"A round does not end within {PATIENCE_S:.0f} s on this machine.")
        self._round_s, self._last_s = time.monotonic() - began, time.monotonic() - last
        ended = self.clinic.get("/medsegr/rounds")[-1]
        if ended["status"] != RoundStatus.ADOPTED and "in charge" not in ended["sentence"]:
            raise MedSegRError(f"The first round was to be adopted, but: {ended['sentence']}")

    @property
    def round_s(self) -> tuple[float, float]:
        """Seconds that the watched round took, and those of its last part."""
        return self._round_s, self._last_s

    def run(self, kills: Sequence[Kill]) -> Iterator[Kill]:
        """Each kill once it has been looked at. Raises `MedSegRError` where the server cannot be started any more."""
        for kill in kills:
            self._number += 1
            self._strike(kill)
            self._recover(kill)
            self._look(kill)
            self.clinic.resume()
            yield kill

    def settle(self) -> tuple[list[str], list[str]]:
        """At the end: rounds that are open get the time to end, then everything is read. Returns (lost, broken)."""
        self.clinic.pause()
        inspector = Inspector(self.server.state, self.checkpoint)
        end = time.monotonic() + PATIENCE_S
        while (left := inspector.open_rounds()) and time.monotonic() < end:
            time.sleep(1.0)
        found = list(inspector.lost(self.clinic.accepted)), list(inspector.broken())
        found[1].extend(f"round {number} never ends" for number in left)
        inspector.close()
        return found

    def _strike(self, kill: Kill) -> None:
        """Wait for the phase, then for the instant, and kill."""
        answering = self._answering() if kill.phase is not Phase.PROMOTION else ""
        if kill.phase is Phase.TRAINING:
            self._in_round(kill)
        else:
            self.clinic.wanted = kill.phase
            if not self.clinic.await_begin(kill.phase, PATIENCE_S):
                kill.broken.append(f"the server did not get to {kill.phase} within {PATIENCE_S:.0f} s")
            usual = self.clinic.durations[kill.phase][-9:]
            self._sleep(kill, statistics.median(usual) if usual else GUESS_S[kill.phase])
            kill.hit = self.clinic.doing() is kill.phase
        try:
            if not self.server.kill(kill.target, answering, self._rng.randrange(8)):
                kill.target = Target.ALL  # what was to be killed had just ended
                self.server.kill(kill.target)
        except MedSegRError as error:
            kill.broken.append(str(error))
        self.clinic.wanted = None

    def _in_round(self, kill: Kill) -> None:
        """Wait for a round to begin (or for its last part), then for an instant of it. The clinic asks and corrects meanwhile."""
        end = time.monotonic() + PATIENCE_S
        part = ""
        while part != LAST_PART if kill.late else not part:
            running = self._running()
            part = str(running["phase"]) if running else ""
            self.clinic.wanted = None if running else Phase.TRAINING
            if time.monotonic() > end:
                kill.broken.append(f"no round got to where it was to be killed within {PATIENCE_S:.0f} s")
                return
            time.sleep(0.05)
        began = time.monotonic()
        kill.delay_s = self._rng.uniform(0.0, BEYOND * (self._last_s if kill.late else self._round_s))
        while part and time.monotonic() - began < kill.delay_s:
            kill.round_phase = part
            time.sleep(0.05)
            running = self._running()
            part = str(running["phase"]) if running else ""
        if part:
            kill.hit, kill.round_phase = True, part

    def _running(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] | None = self.clinic.get("/medsegr/learning")["running"]
            return found
        except (requests.RequestException, Refused):
            return None

    def _answering(self) -> str:
        """The version that answers now, as processes are told apart by it. During a promotion any model may be killed, also the
        one that is being loaded."""
        known = self.clinic.get("/medsegr/models")
        numbers = {version["name"]: version["number"] for version in known["versions"]}
        return str(known["answering"]) if numbers.get(known["answering"]) else BASE

    def _sleep(self, kill: Kill, usual: float) -> None:
        kill.delay_s = self._rng.uniform(0.0, BEYOND * usual)
        time.sleep(kill.delay_s)

    def _recover(self, kill: Kill) -> None:
        """Have the server answer again; the clinic is paused from here on."""
        self.clinic.pause()
        began = time.monotonic()
        if self.server.process is None:
            self.server.start()
        else:
            self.server.wait_until_ready()
        said = ""
        for _ in range(ASKS):
            image = self._rng.choice(self.clinic.images)
            try:
                self.clinic.ask(image, sorted(image.masks)[:1], f"probe {self._number}")
                break
            except (Refused, requests.RequestException) as error:
                said = str(error)
                time.sleep(1.0)
        else:
            kill.broken.append(f"the server does not answer: {said}")
        kill.ready_s = time.monotonic() - began

    def _look(self, kill: Kill) -> None:
        inspector = Inspector(self.server.state, self.checkpoint, self._number % THOROUGH == 0)
        kill.lost += inspector.lost(self.clinic.accepted)
        kill.broken += inspector.broken()
        kill.broken += self._not_followed(inspector)
        inspector.close()

    def _not_followed(self, inspector: Inspector) -> list[str]:
        """The version that answers is the one in charge, after a while."""
        end = time.monotonic() + PATIENCE_S
        while True:
            current = inspector.registry.current().name
            known = self.clinic.get("/medsegr/models")
            if known["current"] == known["answering"] == current:
                return []
            if time.monotonic() > end:
                return [f"{current} is in charge, but {known['answering']} answers"]
            time.sleep(0.3)
