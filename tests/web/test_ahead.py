"""Looking ahead inside the model's process: the image is read in a thread, and a question need not wait for that."""

from __future__ import annotations

import threading
import time
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
from fake_predictor import FakePredictor

from medsegr.errors import Cancelled, ImageError
from medsegr.web import ahead
from medsegr.web.ahead import Ahead
from medsegr.web.engine import Engine
from medsegr.web.jobs import Job, decode


def test_the_engine_looks_when_it_is_told_to_score(studies: Path) -> None:
    ours, theirs = Pipe()
    engine = Engine(ours)
    engine._answer(FakePredictor(), Job("l", str(studies / "pic.png"), ""), "score")
    engine._cancelled.add("m")
    engine._answer(FakePredictor(), Job("m", str(studies / "pic.png"), ""), "score")
    done, cancelled = decode(theirs.recv_bytes()), decode(theirs.recv_bytes())
    assert (done["event"], done["masks"]) == ("done", 0)
    assert done["look"]["version"] == "fake-1" and done["look"]["entropy"] == 4.0
    assert [name for name, _ in done["look"]["seen"]] == ["spleen", "liver", "kidney", "gallbladder"]
    assert cancelled["kind"] == "Cancelled" and not engine._cancelled


def test_reading_a_large_image_does_not_hold_up_a_question(
    studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    ready = threading.Event()
    real = ahead.read_image

    def slow(path: Path, **more: Any) -> Any:
        reads.append(path.name)
        ready.wait(30)
        return real(path, **more)

    monkeypatch.setattr(ahead, "read_image", slow)
    looking = Ahead()
    job = Job("l", str(studies / "pic.png"), "")
    began = time.monotonic()
    asked = began + 0.1
    with pytest.raises(Cancelled):
        looking.look(FakePredictor(), job, lambda: time.monotonic() > asked)
    assert time.monotonic() - began < 10
    ready.set()
    assert looking.look(FakePredictor(), job, lambda: False)["version"] == "fake-1"
    assert reads == ["pic.png"], "what was read in vain is used by the next try"
    looking.look(FakePredictor(), job, lambda: False)
    assert reads == ["pic.png"] * 2, "and is not kept afterwards"


def test_an_image_that_cannot_be_read_says_so_each_time(studies: Path) -> None:
    (studies / "bad.png").write_bytes(b"no picture")
    looking = Ahead()
    for _ in range(2):
        with pytest.raises(ImageError):
            looking.look(FakePredictor(), Job("l", str(studies / "bad.png"), ""), lambda: False)
