"""Real MONAI Label servers with this app, on a copy of it: started, killed and restarted on the same port."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from numpy.typing import NDArray

from tests.system.nrrd import read_nrrd
from tests.system.ports import free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("liver", "gallbladder", "spleen", "kidney")
SEEING = "tests.system.seeing_predictor:make"
"""The predictor that finds grey values: which pixels it marks follows from the file alone."""
READY_S = 180


@dataclass
class MedSegRServer:
    """A server and how it was started. `url` stays the same over `restart`."""

    url: str
    folder: Path
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def start(self) -> MedSegRServer:
        """Start the process; does not wait."""
        assert self.process is None
        with (self.folder / "printed.txt").open("ab") as printed:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def wait(self) -> MedSegRServer:
        """Until the model can answer."""

        def ready() -> bool:
            assert self.process is not None and self.process.poll() is None, self.logs()[-4000:]
            try:
                return requests.get(f"{self.url}/medsegr/readyz", timeout=5).status_code == 200
            except (requests.ConnectionError, requests.Timeout):
                return False

        wait_for(ready, READY_S, lambda: f"The server did not get ready:\n{self.logs()[-4000:]}")
        return self

    def kill(self) -> None:
        """As a power cut does it: the server and its model at once, without a word."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As Ctrl-C does it."""
        self._end(signal.SIGINT)

    def restart(self) -> MedSegRServer:
        """On the same port, with the same state and studies, after `kill` or `stop`."""
        return self.start().wait()

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        family = [psutil.Process(self.process.pid)] if self.process.poll() is None else []
        family += [child for parent in family for child in parent.children(recursive=True)]
        for member in family if how is signal.SIGKILL else family[:1]:
            member.send_signal(how)
        for member in psutil.wait_procs(family, timeout=20)[1]:
            member.kill()
        self.process.wait(20)
        self.process = None

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(self.url + path, headers=self.headers, timeout=120, **more)

    def post(self, path: str, **more: Any) -> requests.Response:
        return requests.post(self.url + path, headers=self.headers, timeout=120, **more)

    def put_label(self, image: str, content: bytes, params: dict[str, Any]) -> requests.Response:
        """Save a label map (NRRD) as stock clients do."""
        return requests.put(
            f"{self.url}/datastore/label",
            params={"image": image},
            files={"params": (None, json.dumps(params)), "label": ("label.nrrd", content)},
            headers=self.headers,
            timeout=120,
        )

    def turns(self, image: str) -> list[dict[str, Any]]:
        """The turns of an image, as the server lists them."""
        found: Any = self.get("/medsegr/turns", params={"image": image}).json()
        return list(found["turns"] if isinstance(found, dict) else found)

    def mask(self, turn: str, n: int) -> NDArray[np.bool_]:
        """Finding `n`'s own mask [Z, Y, X] (rows of a DICOM slice are Y), as the server gives it."""
        reply = self.get(f"/medsegr/turns/{turn}/masks/{n}", params={"format": "nrrd"})
        assert reply.status_code == 200, reply.text[:300]
        return read_nrrd(reply.content) != 0

    def stack(self, series: str, n: int = 1) -> list[tuple[str, int]]:
        """(SOPInstanceUID, frame) of every plane of a mask on stack `n`, as the server gives it."""
        stacks = self.get(f"/medsegr/series/{series}").json()["stacks"]
        instances = next(stack for stack in stacks if stack["n"] == n)["instances"]
        return [(instance["sop"], int(instance.get("frame", 1))) for instance in instances]

    def mask_by_instance(
        self, turn: str, n: int, series: str, stack: int = 1
    ) -> dict[tuple[str, int], NDArray[np.bool_]]:
        """Finding `n`'s mask as {(SOPInstanceUID, frame): [rows, columns] bool}."""
        return self._by_instance(self.mask(turn, n), series, stack)

    def correction_by_instance(
        self, correction: str, k: int, series: str, stack: int = 1
    ) -> dict[tuple[str, int], NDArray[np.bool_]]:
        """Mask `k` (from 1) of a stored correction, likewise."""
        reply = self.get(f"/medsegr/corrections/{correction}/masks/{k}", params={"format": "nrrd"})
        assert reply.status_code == 200, reply.text[:300]
        return self._by_instance(read_nrrd(reply.content) != 0, series, stack)

    def _by_instance(
        self, mask: NDArray[np.bool_], series: str, stack: int
    ) -> dict[tuple[str, int], NDArray[np.bool_]]:
        planes = mask[None] if mask.ndim == 2 else mask
        names = self.stack(series, stack)
        assert len(names) == len(planes), f"{len(planes)} planes for {len(names)} instances"
        return dict(zip(names, planes, strict=True))

    def logs(self) -> str:
        """Everything that was logged or printed so far."""
        found = [self.folder / "printed.txt", *(self.folder / "app" / "logs").glob("*")]
        return "".join(path.read_text(errors="replace") for path in found if path.is_file())


def make_server(
    folder: Path,
    studies: str | Path,
    *,
    factory: str | None = None,
    conf: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
) -> MedSegRServer:
    """A server of `studies` (DICOMweb URL or folder) that is not started yet.

    It answers with the weights that ship, or with `factory`'s predictor (`SEEING`). Nothing outside `folder` is written.
    """
    ignored = shutil.ignore_patterns("model", "logs", "bin", "state", "__pycache__")
    shutil.copytree(ROOT / "apps" / "medsegr", folder / "app", ignore=ignored)
    for name in ("tmp", "home", "checkpoint"):
        (folder / name).mkdir()
    (folder / "checkpoint" / "config.json").write_text(json.dumps({"targets": TARGETS}))
    port = free_port()
    settings = {
        "device": "cpu",
        "state": str(folder / "state"),
        **({"checkpoint": str(folder / "checkpoint")} if factory else {}),
        **(conf or {}),
    }
    command = [
        *(sys.executable, "-m", "monailabel.main", "start_server", "--app", str(folder / "app")),
        *("--studies", str(studies), "--host", host, "--port", str(port)),
        *(part for name, value in settings.items() for part in ("--conf", name, value)),
    ]

    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "HTTPS_PROXY": "http://127.0.0.1:9",  # whatever is fetched at start fails loudly
        "HF_HUB_OFFLINE": "1",
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        **({"MEDSEGR_PREDICTOR_FACTORY": factory} if factory else {}),
        **(environment or {}),
    }
    return MedSegRServer(f"http://127.0.0.1:{port}", folder, command, variables)
