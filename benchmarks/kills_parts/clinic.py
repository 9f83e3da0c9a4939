"""A clinic that never rests: it asks, corrects, starts rounds, promotes and goes back over HTTP, one thing after the other, and
writes down whatever the server said yes to.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import requests
from learning.remote import events
from learning.streams import Mask
from learning.wording import question

from medsegr.errors import MedSegRError
from medsegr.imaging import write_label_map

from .images import Labelled

TIMEOUT_S = 600
FIRST_ROUND = 4
"""Corrections before the first round."""
CORRECTED = 3
"""Structures of a picture that are corrected at most."""
EVERY_ROUND, EVERY_PROMOTION, EVERY_ROLLBACK = 5, 7, 9
"""Corrections between two rounds, promotions, rollbacks, where nothing else is wanted."""


class Phase(StrEnum):
    """What the server is in the middle of when something is killed."""

    TURN = "turn"
    CORRECTION = "correction"
    TRAINING = "training"
    PROMOTION = "promotion"
    ROLLBACK = "rollback"


class Refused(MedSegRError):
    """The server answered, and its answer was no."""


@dataclass(frozen=True)
class Answer:
    """A turn that was answered: its text and the labels of its findings."""

    turn: str
    text: str
    labels: tuple[str, ...]


BREATH_S = 2.0


@dataclass
class Accepted:
    """What the server said yes to; only the clinic's thread adds."""

    turns: dict[str, Answer] = field(default_factory=dict)
    corrections: dict[str, dict[str, str]] = field(default_factory=dict)
    """Id -> label -> SHA-256 of the mask that was sent (`mask_hash`)."""
    rounds: list[int] = field(default_factory=list)
    charges: list[tuple[str, str, str]] = field(default_factory=list)
    """(version, action, time) of each promotion and rollback."""


class Clinic:
    """Works on its own thread from `start` to `close`, except while it is paused; what it does follows from `seed`.

    `wanted` is done next, and again and again. What the server refuses, or could not answer because it was killed, is counted in
    `refused` and `failed`; neither is an error.
    """

    def __init__(self, url: str, images: Sequence[Labelled], seed: int) -> None:
        self.url, self.images, self.accepted = url, images, Accepted()
        self.wanted: Phase | None = None
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.durations: dict[Phase, list[float]] = defaultdict(list)
        self._rng = random.Random(seed)
        self._change = threading.Condition()
        self._doing: Phase | None = None  # locked
        self._begun: Counter[Phase] = Counter()  # locked
        self._paused, self._idle, self._ended = True, True, False  # locked
        self._thread = threading.Thread(target=self._work, name="clinic", daemon=True)
        self._corrections = 0

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()
        self.resume()

    def pause(self) -> None:
        """Returns when the step that is being taken has ended."""
        with self._change:
            self._paused = True
            self._change.notify_all()
            self._change.wait_for(lambda: self._idle, TIMEOUT_S)

    def resume(self) -> None:
        """Go on after `pause`."""
        with self._change:
            self._paused = False
            self._change.notify_all()

    def close(self) -> None:
        """Stop for good."""
        with self._change:
            self._ended = True
            self._change.notify_all()
        if self._thread.ident is not None:
            self._thread.join(TIMEOUT_S)

    def doing(self) -> Phase | None:
        """What is being waited for at this moment."""
        with self._change:
            return self._doing

    def await_begin(self, phase: Phase, seconds: float) -> bool:
        """Block until a request of this phase is about to be sent; False if none was within `seconds`."""
        with self._change:
            before = self._begun[phase]
            return self._change.wait_for(lambda: self._begun[phase] > before, seconds)

    def ask(self, image: Labelled, names: Sequence[str], seed: str) -> Answer:
        """Ask for structures; the turn is noted when its answer is whole. Raises `Refused` or `requests.RequestException`."""
        body = {"image": image.name, "question": question(names, seed)}
        answer = None
        with requests.post(f"{self.url}/medsegr/ask", json=body, stream=True, timeout=TIMEOUT_S) as reply:
            _check(reply)
            for event, data in events(reply.iter_lines(decode_unicode=True)):
                if event == "error":
                    raise Refused(str(data.get("detail")))
                if event == "done":
                    labels = tuple(str(found["label"]) for found in data["findings"])
                    answer = Answer(str(data["turn_id"]), str(data["answer"]), labels)
                    break
        if answer is None:
            raise requests.ConnectionError("The reply ended before the answer.")
        self.accepted.turns[answer.turn] = answer
        return answer

    def get(self, path: str) -> Any:
        """A JSON reply; raises `Refused` or `requests.RequestException`."""
        return self._json("GET", path)

    def _work(self) -> None:
        while True:
            with self._change:
                self._idle = True
                self._change.notify_all()
                self._change.wait_for(lambda: self._ended or not self._paused)
                if self._ended:
                    return
                self._idle = False
            wanted = self.wanted
            try:
                self._step(wanted)
            except Refused:
                self.refused[wanted or "anything"] += 1
            except requests.RequestException:
                self.failed[wanted or "anything"] += 1
                time.sleep(0.2)
            if wanted is None:
                self._breathe()

    def _breathe(self) -> None:
        """Between two questions that nobody waits for: who asks without a pause leaves a round, which gives way, no processor."""
        end = time.monotonic() + BREATH_S
        while self.wanted is None and not self._paused and time.monotonic() < end:
            time.sleep(0.05)

    def _step(self, wanted: Phase | None) -> None:
        if wanted is Phase.PROMOTION:
            return self._promote()
        if wanted is Phase.ROLLBACK:
            return self._roll_back()
        if wanted is Phase.TRAINING:
            self._start_round()
        image = self._rng.choice(self.images)
        names = self._rng.sample(sorted(image.masks), min(CORRECTED, len(image.masks)))
        with self._in(Phase.TURN):
            answer = self.ask(image, names, f"{image.name}-{len(self.accepted.turns)}")
        if wanted is not Phase.TURN:
            self._correct(image, names, answer)
        if wanted is None:
            self._corrections += 1
            if self._corrections % EVERY_ROUND == 0:
                self._start_round()
            if self._corrections % EVERY_PROMOTION == 0:
                self._promote()
            if self._corrections % EVERY_ROLLBACK == 0:
                self._roll_back()
        return None

    def _correct(self, image: Labelled, names: Sequence[str], answer: Answer) -> None:
        findings: list[dict[str, Any]] = []
        files, hashes = {}, {}
        with tempfile.TemporaryDirectory(prefix="medsegr-") as folder:
            for k, name in enumerate(names, start=1):
                path = Path(folder) / f"mask{k}.nrrd"
                write_label_map(path, image.masks[name].astype(np.uint8), image.picture())
                files[f"mask{k}"] = (path.name, path.read_bytes(), "application/octet-stream")
                own = [n for n, label in enumerate(answer.labels, start=1) if label == name]
                findings.append({"label": name, "mask": f"mask{k}", **({"n": own[0]} if own else {})})
                hashes[name] = mask_hash(image.masks[name])
        body = {"turn_id": answer.turn, "verdict": "edited", "findings": findings}
        with self._in(Phase.CORRECTION):
            stored = self._json(
                "POST", "/medsegr/corrections", data={"correction": json.dumps(body)}, files=files
            )
        self.accepted.corrections[str(stored["id"])] = hashes

    def _start_round(self) -> None:
        learning = self.get("/medsegr/learning")
        if learning["running"] or len(self.accepted.corrections) < FIRST_ROUND:
            return
        with self._in(Phase.TRAINING):
            self.accepted.rounds.append(int(self._json("POST", "/medsegr/rounds", json={})["id"]))

    def _promote(self) -> None:
        known = self.get("/medsegr/models")
        others = [v["name"] for v in known["versions"][-6:] if v["name"] != known["current"]]
        if others:
            with self._in(Phase.PROMOTION):
                self._charged(f"/medsegr/models/{self._rng.choice(others)}/promote")

    def _roll_back(self) -> None:
        if self.get("/medsegr/models")["previous"] is None:
            return self._promote()
        with self._in(Phase.ROLLBACK):
            return self._charged("/medsegr/models/rollback")

    def _charged(self, path: str) -> None:
        charge = self._json("POST", path, json={"reason": "benchmark"})["charge"]
        self.accepted.charges.append((charge["version"], charge["action"], charge["created"]))

    @contextmanager
    def _in(self, phase: Phase) -> Iterator[None]:
        with self._change:
            self._doing = phase
            self._begun[phase] += 1
            self._change.notify_all()
        began = time.monotonic()
        try:
            yield
            self.durations[phase].append(time.monotonic() - began)
        finally:
            with self._change:
                self._doing = None

    def _json(self, method: str, path: str, **more: Any) -> Any:
        reply = requests.request(method, self.url + path, timeout=TIMEOUT_S, **more)
        _check(reply)
        return reply.json()


def mask_hash(mask: Mask) -> str:
    """Of what is inside, [H, W] bool, on its grid."""
    packed = np.packbits(np.ascontiguousarray(mask, np.bool_)).tobytes()
    return hashlib.sha256(f"{mask.shape}".encode() + packed).hexdigest()


def _check(reply: requests.Response) -> None:
    if not reply.ok:
        raise Refused(f"{reply.status_code}: {reply.text[:300]}")
