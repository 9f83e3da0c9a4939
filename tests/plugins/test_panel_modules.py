"""The OHIF panel's modules that need no browser, under node."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PLUGIN = HERE.parents[1] / "plugins" / "ohif"


@pytest.mark.parametrize("tests", sorted(file.name for file in HERE.glob("*.test.mjs")))
def test_the_panels_modules_pass_their_tests(tests: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"needs node 20 or newer, found {version.strip()}")
    command = [
        node,
        "--no-warnings",
        "--experimental-default-type=module",
        "--test",
        str(HERE / tests),
    ]
    done = subprocess.run(
        command, env={**os.environ, "MEDSEGR_PLUGIN": str(PLUGIN)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
