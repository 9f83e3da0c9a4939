"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of public images: MEDSEGR_DATA, or ../shared/data beside the repository; skips where there is none."""
    folder = Path(os.environ.get("MEDSEGR_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no public images in {folder}; name their folder with MEDSEGR_DATA")
    return folder
