"""A real Orthanc with its DICOMweb plugin (Debian's packages), on a free port with storage of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.system.ports import free_port, wait_for

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_S = 60


@dataclass
class Orthanc:
    """A running PACS; `auth` is (user, password) where it wants a login."""

    root: str
    folder: Path
    process: subprocess.Popen[bytes]
    auth: tuple[str, str] | None = None

    @property
    def url(self) -> str:
        """What `--studies` takes: the root of DICOMweb."""
        return f"{self.root}/dicom-web"

    def upload(self, paths: Iterable[Path]) -> None:
        """Store DICOM files; storing one twice changes nothing."""
        with requests.Session() as session:
            session.auth = self.auth
            for path in paths:
                reply = session.post(f"{self.root}/instances", data=path.read_bytes(), timeout=60)
                assert reply.status_code == 200, f"{path.name}: {reply.text[:300]}"

    def get(self, path: str, **more: object) -> requests.Response:
        """A request to DICOMweb, logged in."""
        return requests.get(self.url + path, auth=self.auth, timeout=60, **more)

    def logs(self) -> str:
        """What it printed so far."""
        return (self.folder / "printed.txt").read_text(errors="replace")

    def stop(self) -> None:
        """End it; its storage stays until the test's folder goes."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)


def program() -> str | None:
    """Path of Orthanc, or None where it or its plugin is missing."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    return found if found and PLUGIN.is_file() else None


def start_orthanc(folder: Path, auth: tuple[str, str] | None = None) -> Orthanc:
    """Start it and wait until DICOMweb answers."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = {
        "Name": "medsegr test PACS",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "TemporaryDirectory": str(folder),
        "HttpPort": port,
        "HttpBindAddresses": ["127.0.0.1"],
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": auth is not None,
        "RegisteredUsers": dict([auth]) if auth else {},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {
            "Enable": True,
            "Root": "/dicom-web/",
            "StudiesMetadata": "Full",
            "SeriesMetadata": "Full",
        },
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "printed.txt").open("wb") as printed:
        process = subprocess.Popen(
            [str(program()), str(folder / "orthanc.json")],
            cwd=folder,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
    orthanc = Orthanc(f"http://127.0.0.1:{port}", folder, process, auth)

    def answers() -> bool:
        assert process.poll() is None, orthanc.logs()
        try:
            return orthanc.get("/studies?limit=1").status_code in (200, 204)
        except requests.ConnectionError:
            return False

    wait_for(answers, START_S, orthanc.logs)
    return orthanc
