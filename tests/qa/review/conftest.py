"""A file under review and its queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsegr.qa.review.queue import ReviewQueue
from tests.review_files import write_review_file


@pytest.fixture
def qa_file(tmp_path: Path) -> Path:
    return write_review_file(tmp_path / "set")


@pytest.fixture
def queue(qa_file: Path) -> ReviewQueue:
    return ReviewQueue(qa_file)
