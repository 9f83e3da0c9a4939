"""A predictor without a network: what it says and draws follows from the question, so tests can check every
step after it.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medsegr.errors import Cancelled, CheckpointError, QuestionError

TARGETS = ("liver", "gallbladder", "spleen", "kidney")


@dataclass(frozen=True)
class FakeFinding:
    label: str
    phrase: str
    mask: Any
    confidence: float


@dataclass(frozen=True)
class FakeReply:
    text: str
    findings: tuple[FakeFinding, ...]
    latencies_ms: dict[str, float]
    outcome: str = "found"


def make(checkpoint: str, device: str = "cpu") -> FakePredictor:
    """The factory that tests name by its import path."""
    if checkpoint.endswith("broken"):
        raise CheckpointError("The checkpoint is broken on purpose.")
    if checkpoint.endswith("hangs"):
        time.sleep(300)
    if checkpoint.endswith("dies"):
        os._exit(9)
    return FakePredictor(Path(checkpoint))


class FakePredictor:
    """Finds each target named in the question; each is a block whose size grows with its id.

    Words: "stores bile" -> gallbladder; "" -> every target; "nothing" -> none; "slowly N" takes N seconds;
    "unheard" of structures are not trained; "crash" raises; "die" ends the process; "refuse" is a QuestionError; "again" repeats
    what the last turn of the history named.
    """

    licence = "CC0"

    def __init__(self, checkpoint: Path = Path()) -> None:
        """A checkpoint with a `meta.json` says its version, and `config.json` the targets."""
        meta, config = checkpoint / "meta.json", checkpoint / "config.json"
        known = meta.is_file()
        self.version = json.loads(meta.read_text())["version"] if known else "fake-1"
        self.targets = tuple(json.loads(config.read_text())["targets"]) if known else TARGETS

    def set_image(self, image: Any, modality: str | None = None) -> None:
        self._shape = image.pixels.shape[:2]

    def ask(self, question: str, history: Any = (), **options: Any) -> FakeReply:
        return self._reply(self._shape, question, history, **options)

    def ask_volume(self, volume: Any, question: str, history: Any = (), **options: Any) -> FakeReply:
        chosen = options.pop("slices", None)
        reply = self._reply(volume.voxels.shape[:3], question, history, **options)
        if chosen is not None:
            outside = [k for k in range(volume.n_slices) if k not in chosen]
            for finding in reply.findings:
                np.moveaxis(finding.mask, volume.slice_axis, 0)[outside] = False
        return reply

    def _reply(self, shape: Any, question: str, history: Any, **options: Any) -> FakeReply:
        stop = options.get("should_stop") or (lambda: False)
        say = options.get("on_text") or (lambda piece: None)
        words = question.split()
        if "slowly" in words:
            end = time.monotonic() + float(words[words.index("slowly") + 1])
            while time.monotonic() < end:
                if stop():
                    raise Cancelled("The question was cancelled.")
                if options.get("on_progress"):
                    options["on_progress"](1, 2)
                sum(range(20000))
        if "crash" in words:
            raise KeyError(question)
        if "die" in words:
            os._exit(7)
        if "refuse" in words:
            raise QuestionError("The question cannot be answered.")
        said = history[-1][0] if "again" in words and history else question
        names = (
            ["gallbladder"] if "stores bile" in said else [t for t in self.targets if t in said or not said]
        )
        text = f"Found {' and '.join(names)}." if names else "Not present."
        for piece in text.split(" "):
            say(piece + " ")
        findings = tuple(
            FakeFinding(name, f"the {name}", block(shape, self.targets.index(name) + 1), 0.5)
            for name in names
        )
        outcome = "found" if findings else "not_trained" if "unheard" in words else "not_present"
        return FakeReply(text, findings, {"total_ms": 1.0}, outcome)


def block(shape: tuple[int, ...], size: int) -> Any:
    """Bool mask of a block from the origin with side `size + 2` on every axis that is long enough."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(0, min(size + 2, side)) for side in shape)] = True
    return mask
