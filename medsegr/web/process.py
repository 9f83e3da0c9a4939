"""The model's process as the server sees it: a fresh interpreter with one end of a socket pair, loading or ready."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from medsegr.web.jobs import decode, encode

logger = logging.getLogger(__name__)
DIED_AT_START = "The model's process stopped while it was loading; the server's log may say why."
LOAD_S = 900.0
"""So long a model may take to load: billions of parameters from a slow disk take minutes."""
TOO_LONG = "The model was not loaded within {minutes:g} minutes and its process was ended; the disk may be slow, or memory short."
DEFAULT_FACTORY = "medsegr.predictor:Predictor.from_pretrained"


class WorkerState(StrEnum):
    """Whether the model can answer."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class WorkerSettings:
    """How the model's process is made. `factory` is an import path `module:callable` taking (checkpoint,
    device=...).
    """

    checkpoint: str
    factory: str = DEFAULT_FACTORY
    device: str = "auto"
    niceness: int = 5
    max_waiting: int = 64
    cancel_grace_s: float = 20.0
    retry_after_s: float = 30.0


@dataclass(frozen=True)
class ModelInfo:
    """What a loaded model says about itself."""

    version: str
    licence: str
    targets: tuple[str, ...]


def spawn(settings: WorkerSettings) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start the process and return it with our end of the line; raises `OSError`."""
    ours, theirs = socket.socketpair()
    with theirs:
        fd = theirs.fileno()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        }
        environment.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "medsegr.web.engine",
                f"--fd={fd}",
                f"--factory={settings.factory}",
                f"--checkpoint={settings.checkpoint}",
                f"--device={settings.device}",
                f"--niceness={settings.niceness}",
            ],
            pass_fds=(fd,),
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    return process, Connection(ours.detach())


class ModelFailed(Exception):
    """A model that did not get ready. `kind` is a class of `medsegr.errors` or "died"; its text is one sentence."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind, self.sentence = kind, sentence


class ModelProcess:
    """A model's process with our end of its line. Begins to load at once; raises `ModelFailed` where it cannot be begun."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.info: ModelInfo | None = None
        self.load_s = 0.0
        self._sending = threading.Lock()
        try:
            self._process, self.connection = spawn(settings)
        except OSError as error:
            logger.error("The model's process cannot be started: %s", error.strerror)
            raise ModelFailed("died", DIED_AT_START) from error

    @property
    def checkpoint(self) -> str:
        """The directory it was made of."""
        return self.settings.checkpoint

    @property
    def pid(self) -> int | None:
        """Process id, while it lives."""
        return self._process.pid if self.alive else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def wait_until_ready(self) -> ModelInfo:
        """Block until the weights are loaded and the golden question has passed, `LOAD_S` at most; raises `ModelFailed`, having
        ended it.
        """
        try:
            if self.connection.poll(LOAD_S):
                message = decode(self.connection.recv_bytes())
            else:
                sentence = TOO_LONG.format(minutes=LOAD_S / 60)
                message = {"event": "failed", "kind": "died", "sentence": sentence}
        except (
            EOFError,
            OSError,
            ValueError,
        ):  # it died before it could say why, or its line carries nonsense
            message = {"event": "failed", "kind": "died", "sentence": DIED_AT_START}
        if message["event"] != "ready":
            self.end()
            raise ModelFailed(message["kind"], message["sentence"])
        self.info = ModelInfo(message["version"], message["licence"], tuple(message["targets"]))
        self.load_s = message["load_ms"] / 1000
        return self.info

    def send(self, message: dict[str, Any]) -> None:
        """Say something to the process; whether it still lives is learnt by reading."""
        with suppress(OSError), self._sending:
            self.connection.send_bytes(encode(message))

    def kill(self) -> None:
        """End the process from another thread than the one that reads from it."""
        if self.alive:
            self._process.kill()

    def end(self) -> None:
        """End the process and close the line."""
        self.connection.close()
        self.kill()
        self._process.wait()
