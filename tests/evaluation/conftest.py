"""Images of three structures."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_predictor import write_images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with seven images, i0 to i5 and s0, each showing liver, spleen and kidney."""
    write_images(tmp_path)
    return tmp_path
