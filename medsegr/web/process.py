"""How the model's process is described and begun: a fresh interpreter with one end of a socket pair."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path

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
