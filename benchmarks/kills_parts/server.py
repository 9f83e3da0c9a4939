"""A real server of this app on a copy of it, whose processes can be told apart and killed one by one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil
import requests

from medsegr.errors import MedSegRError

ROOT = Path(__file__).resolve().parents[2]
RUNNER = "benchmarks.kills_parts.short_round"
ENGINE = "medsegr.web.engine"
BASE = "base"
READY_S = 900.0
"""A start takes seconds; on a machine that others keep busy, minutes."""
GONE_S = 30.0


class Target(StrEnum):
    """What is killed. The trainer has a session of its own and outlives a server that is killed alone."""

    ALL = "server, model and trainer"
    SERVER = "server alone"
    MODEL = "model's process"
    TRAINER = "trainer"


@dataclass
class Server:
    """A server on a port of 127.0.0.1 that stays the same from one life to the next; all that it writes is under `folder`."""

    folder: Path
    url: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    starts_s: list[float] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    def start(self) -> float:
        """Start it and wait until it can answer; returns the seconds. Raises `MedSegRError`."""
        began = time.monotonic()
        with (self.folder / "printed.txt").open("ab") as printed:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdout=printed, stderr=printed,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.wait_until_ready()
        self.starts_s.append(time.monotonic() - began)
        return self.starts_s[-1]

    def wait_until_ready(self) -> None:
        """Until the model can answer; raises `MedSegRError`."""
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            if self.process is None or self.process.poll() is not None:
                raise MedSegRError("The server ended while it was starting; printed.txt says why.")
            with suppress(requests.RequestException):
                if requests.get(f"{self.url}/medsegr/readyz", timeout=5).status_code == 200:
                    return
            time.sleep(0.1)
        raise MedSegRError(f"The server was not ready within {READY_S:.0f} s.")

    def models(self) -> list[psutil.Process]:
        """The processes with a model, of this server: the one in charge, one held ready, one being loaded."""
        if self.process is None:
            return []
        with suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if ENGINE in _command(child)]
        return []

    def trainers(self) -> list[psutil.Process]:
        """The processes of rounds of this state folder, also one that an earlier life of the server started."""
        return [
            process
            for process in psutil.process_iter()
            if RUNNER in (words := _command(process)) and str(self.state) in words
        ]

    def kill(self, target: Target, answering: str = "", pick: int = 0) -> bool:
        """As the kernel does it when memory runs out, without a word. Of several models the one of the version `answering` is
        taken, else `pick` chooses. False where nothing of the kind runs."""
        server = self.process
        models = self.models()
        if target is Target.MODEL and answering:
            models = [model for model in models if self._version(model) == answering] or models
        trainers = self.trainers() if target in (Target.ALL, Target.TRAINER) else []
        if target in (Target.MODEL, Target.TRAINER):
            among = models if target is Target.MODEL else trainers
            if among:
                _kill(among[pick % len(among)])
            return bool(among)
        assert server is not None
        server.kill()
        if target is Target.ALL:
            for process in (*models, *trainers):
                _kill(process)
        server.wait()
        self.process = None
        _, alive = psutil.wait_procs(models, timeout=GONE_S)
        if alive:
            raise MedSegRError(f"{len(alive)} processes of models outlived their server by {GONE_S:.0f} s.")
        return True

    def _version(self, model: psutil.Process) -> str:
        """The version whose weights a model's process has; BASE for those that the server was started with."""
        folder = next((Path(word[13:]) for word in _command(model) if word.startswith("--checkpoint=")), None)
        return folder.name if folder and folder.parent == self.state / "models" else BASE

    def stop(self) -> None:
        """End it in good order, and whatever is left of it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
            if self.process.poll() is None:
                self.kill(Target.ALL)
            self.process = None
        for process in self.trainers():
            _kill(process)


def make_server(folder: Path, studies: Path, checkpoint: str, conf: Mapping[str, str]) -> Server:
    """A server of `studies` that is not started yet; `checkpoint` is a directory or "embedded"."""
    ignored = shutil.ignore_patterns("model", "logs", "bin", "state", "__pycache__")
    shutil.copytree(ROOT / "apps" / "medsegr", folder / "app", ignore=ignored)
    for name in ("tmp", "home"):
        (folder / name).mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "checkpoint": checkpoint, "device": "cpu", "state": str(folder / "state"), "looks": "0", **conf,
    }  # fmt: skip
    command = [
        *(sys.executable, "-m", "monailabel.main", "start_server", "--app", str(folder / "app")),
        *("--studies", str(studies), "--host", "127.0.0.1", "--port", str(port)),
        *(part for name, value in settings.items() for part in ("--conf", name, value)),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "HTTPS_PROXY": "http://127.0.0.1:9",  # nothing is fetched
        "HF_HUB_OFFLINE": "1",
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "MEDSEGR_ROUND_RUNNER": RUNNER,
    }
    return Server(folder, f"http://127.0.0.1:{port}", command, environment)


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.kill()
        process.wait(5)
