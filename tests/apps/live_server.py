"""A real MONAI Label server with this app on a copy of it, with studies of its own.

By default it answers with the fake predictor of tests/web. With MEDSEGR_TEST_CHECKPOINT (a directory, or
"embedded") it answers with that checkpoint, and the checks of what a mask shows are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import requests
from PIL import Image
from pydicom.data import get_testdata_file

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = os.environ.get("MEDSEGR_TEST_CHECKPOINT")
TARGETS = ("liver", "gallbladder", "spleen", "kidney")
TILT = np.radians(20)
AFFINE = np.array(
    [
        [-0.7, 0.0, 0.0, 30.0],
        [0.0, -0.7 * np.cos(TILT), 2.5 * np.sin(TILT), 20.0],
        [0.0, 0.7 * np.sin(TILT), 2.5 * np.cos(TILT), -40.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


@dataclass
class Server:
    """A running server and where its files are."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]
    fake: bool
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    info: dict = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def logs(self) -> str:
        """Everything that was logged or printed so far."""
        found = [self.folder / "printed.txt", *(self.folder / "app" / "logs").glob("*")]
        return "".join(path.read_text(errors="replace") for path in found)

    def stop(self) -> None:
        """End the process."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        """The same server once more, on the same port, with the same state."""
        self.stop()
        self.process = launch(self.folder, self.command, self.environment)
        wait_until_ready(self)

    def post(self, path: str, **more: object) -> requests.Response:
        return requests.post(self.url + path, headers=self.headers, timeout=120, **more)

    def get(self, path: str, **more: object) -> requests.Response:
        return requests.get(self.url + path, headers=self.headers, timeout=120, **more)

    def infer(self, query: str, params: object = None, **more: object) -> requests.Response:
        text = params if isinstance(params, str) else json.dumps(params or {})
        return self.post(f"/infer/{query}", files={"params": (None, text), **more})


def write_studies(folder: Path) -> None:
    """A grey picture, a colour JPEG, a DICOM image, an oblique volume and one that takes a while."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (48, 64), np.uint8)).save(folder / "pic.png")
    Image.fromarray(rng.integers(0, 255, (40, 52, 3), np.uint8)).save(folder / "photo.jpeg")
    shutil.copy(str(get_testdata_file("CT_small.dcm")), folder / "ct.dcm")
    nib.save(nib.Nifti1Image(rng.normal(size=(32, 28, 9)).astype(np.float32), AFFINE), folder / "vol.nii.gz")
    nib.save(
        nib.Nifti1Image(rng.normal(size=(96, 96, 60)).astype(np.float32), np.eye(4)), folder / "big.nii.gz"
    )


def start(folder: Path, host: str | None = "127.0.0.1", conf: Mapping[str, str] | None = None) -> Server:
    """Copy the app, write studies and start the server on a free port. `host` None is MONAI Label's own default."""
    write_studies(folder / "studies")
    ignored = shutil.ignore_patterns("model", "logs", "bin", "state", "__pycache__")
    shutil.copytree(ROOT / "apps" / "medsegr", folder / "app", ignore=ignored)
    (folder / "tmp").mkdir()
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "config.json").write_text(json.dumps({"targets": TARGETS}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "web")]),
        "TMPDIR": str(folder / "tmp"),
        "HTTPS_PROXY": "http://127.0.0.1:9",  # whatever is fetched at start fails loudly
        "HF_HUB_OFFLINE": "1",
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
    }
    if not CHECKPOINT:
        environment["MEDSEGR_PREDICTOR_FACTORY"] = "fake_predictor:make"
    command = [
        *(sys.executable, "-m", "monailabel.main", "start_server", "--app", str(folder / "app")),
        *("--studies", str(folder / "studies"), "--port", str(port)),
        *(("--host", host) if host else ()),
        *("--conf", "checkpoint", CHECKPOINT or str(folder / "checkpoint"), "--conf", "device", "cpu"),
        *("--conf", "state", str(folder / "state")),
        *(part for name, value in (conf or {}).items() for part in ("--conf", name, value)),
    ]
    process = launch(folder, command, environment)
    return Server(f"http://127.0.0.1:{port}", folder, process, not CHECKPOINT, command, environment)


def launch(folder: Path, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """The server's process; what it prints is added to a file."""
    with (folder / "printed.txt").open("ab") as printed:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=printed, stderr=subprocess.STDOUT
        )


def wait_until_ready(server: Server, seconds: float = 120) -> None:
    """Poll readyz; fails with what the server printed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.process.poll() is None:
        try:
            if requests.get(f"{server.url}/medsegr/readyz", timeout=5).status_code == 200:
                server.info = requests.get(f"{server.url}/info/", headers=server.headers, timeout=30).json()
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"The server did not get ready:\n{server.logs()[-4000:]}")
