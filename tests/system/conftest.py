"""A real `medsegr qa review` process, and headless Chromium to look at it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHROMIUM_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1440,900",
)  # fmt: skip


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


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[[], object]]:
    """Starts a browser with a fresh profile; skips where Chromium or selenium is missing."""
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if not all(programs.values()):
        pytest.skip(f"needs {' and '.join(programs)}; `make test-system` installs them")
    drivers = []

    def start() -> object:
        options = webdriver.ChromeOptions()
        options.binary_location = programs["chromium"]
        for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / f'profile{len(drivers)}'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(programs["chromedriver"])
        drivers.append(webdriver.Chrome(options=options, service=service))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.quit()
