"""What the system tests share: a PACS, servers, browsers; a failed test leaves pictures and logs behind.

The folder of what failed is tests/system/artifacts, or the one that MEDSEGR_ARTIFACTS names.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.system.browsers import start_browser
from tests.system.orthanc import Orthanc, program, start_orthanc
from tests.system.servers import MedSegRServer, make_server

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = Path(os.environ.get("MEDSEGR_ARTIFACTS") or Path(__file__).with_name("artifacts"))
OHIF_311 = ROOT / ".cache" / "ohif-3.11.1" / "dist"


@dataclass
class Watched:
    """What runs now, to be pictured when a test fails."""

    browsers: list[Any] = field(default_factory=list)
    servers: list[Any] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Screenshots, consoles and logs; whatever cannot be had is left out."""
        from selenium.common.exceptions import WebDriverException

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number, browser in enumerate(self.browsers, 1):
            with suppress(WebDriverException):
                browser.save_screenshot(str(folder / f"browser{number}.png"))
                lines = [f"{e['level']} {e['message']}" for e in browser.get_log("browser")]
                (folder / f"browser{number}-console.txt").write_text("\n".join(lines))
        for number, server in enumerate(self.servers, 1):
            (folder / f"server{number}.txt").write_text(server.logs())


WATCHED = pytest.StashKey[Watched]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[WATCHED] = Watched()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed and call.when in ("setup", "call"):
        watched = item.config.stash[WATCHED]
        if watched.browsers or watched.servers:
            watched.save(ARTIFACTS / re.sub(r"[^\w-]+", "-", item.name))
    return report


@pytest.fixture(scope="session")
def watched(pytestconfig: pytest.Config) -> Watched:
    return pytestconfig.stash[WATCHED]


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory, watched: Watched) -> Iterator[Orthanc]:
    """A PACS without login, for all tests of the run."""
    yield from _orthanc(tmp_path_factory.mktemp("orthanc"), watched, None)


@pytest.fixture(scope="session")
def orthanc_with_login(tmp_path_factory: pytest.TempPathFactory, watched: Watched) -> Iterator[Orthanc]:
    """A PACS that wants a user and a password."""
    yield from _orthanc(tmp_path_factory.mktemp("orthanc-login"), watched, ("pacsuser", "pacs-secret-7"))


def _orthanc(folder: Path, watched: Watched, auth: tuple[str, str] | None) -> Iterator[Orthanc]:
    if program() is None:
        pytest.skip("needs Debian's orthanc and orthanc-dicomweb; `make test-system` installs them")
    running = start_orthanc(folder, auth)
    watched.servers.append(running)
    yield running
    running.stop()
    watched.servers.remove(running)


@pytest.fixture(scope="session")
def ohif_311() -> Path:
    """The built OHIF 3.11 of npm's @ohif/app."""
    if not (OHIF_311 / "index.html").is_file():
        pytest.skip("needs @ohif/app 3.11 in .cache; `make test-system` fetches it")
    return OHIF_311


@pytest.fixture(scope="module")
def medsegr_server(
    tmp_path_factory: pytest.TempPathFactory, watched: Watched
) -> Iterator[Callable[..., MedSegRServer]]:
    """Starts a server: `medsegr_server(studies, factory=SEEING, conf={...}, environment={...})`; ready when it returns."""
    servers: list[MedSegRServer] = []

    def start(studies: str | Path, **options: Any) -> MedSegRServer:
        servers.append(make_server(tmp_path_factory.mktemp("server"), studies, **options))
        watched.servers.append(servers[-1])
        return servers[-1].start().wait()

    yield start
    for server in servers:
        server.stop()
        watched.servers.remove(server)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, watched: Watched) -> Iterator[Any]:
    """One browser for the tests of a module."""
    yield from _browsers(tmp_path_factory.mktemp("profile"), watched, lambda start: start())


@pytest.fixture
def browse(tmp_path: Path, watched: Watched) -> Iterator[Callable[[], Any]]:
    """Starts a browser with a fresh profile, and another with every call."""
    yield from _browsers(tmp_path, watched, lambda start: start)


def _browsers(folder: Path, watched: Watched, give: Callable[[Callable[[], Any]], Any]) -> Iterator[Any]:
    drivers: list[Any] = []

    def start() -> Any:
        drivers.append(start_browser(folder / f"profile{len(drivers)}"))
        watched.browsers.append(drivers[-1])
        return drivers[-1]

    yield give(start)
    for driver in drivers:
        driver.quit()
        watched.browsers.remove(driver)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts `medsegr qa review FILE --port 0 …` and returns the page's address."""
    processes = []

    def start(file: Path, *options: str) -> str:
        command = [sys.executable, "-c", "from medsegr.cli import main; main()", "qa", "review", str(file)]
        process = subprocess.Popen([*command, "--port", "0", *options], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout
        for line in process.stdout:
            if found := re.search(r"http://\S+/medsegr/review", line):
                return found[0]
        raise AssertionError("The server ended before it said where it listens.")

    yield start
    for process in processes:
        process.send_signal(signal.SIGINT)
        process.wait(30)
