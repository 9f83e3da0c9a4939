"""The model's process, seen from inside: one job, its images, and what it says over the line."""

from __future__ import annotations

import logging
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_predictor import FakePredictor
from PIL import Image

from medsegr.errors import CheckpointError, ImageError
from medsegr.web.engine import Engine, Images, answer
from medsegr.web.jobs import Job, decode
from medsegr.web.predicting import build, golden


def ask(path: Path, question: str, **more: Any) -> tuple[dict[str, Any], list[bytes], list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []
    job = Job(id="j", image=str(path), question=question, **more)
    fields, masks = answer(FakePredictor(), Images(), job, said.append, lambda: False)
    return fields, masks, said


def test_an_answer_has_text_findings_grid_and_times(studies: Path) -> None:
    fields, masks, said = ask(studies / "pic.png", "spleen")
    assert fields["text"] == "Found spleen." and len(masks) == 1
    assert fields["findings"][0]["area_px"] == 25
    assert fields["geometry"] == {"shape": [20, 30], "affine": None, "spacing_mm": None}
    assert {"total_ms", "read_ms", "answer_ms", "measure_ms"} == set(fields["latencies"])
    assert "".join(m["piece"] for m in said) == "Found spleen. "


def test_history_and_slices_reach_the_predictor(studies: Path) -> None:
    fields, masks, _ = ask(
        studies / "vol.nii.gz",
        "again",
        history=(("Where is the kidney?", "There."),),
        slices=(1, 2),
        one_slice=True,
    )
    assert fields["findings"][0]["label"] == "kidney" and fields["findings"][0]["slices"] == [1, 1]
    assert np.unpackbits(np.frombuffer(masks[0], np.uint8)).sum() == 36


def test_jobs_survive_the_pipe() -> None:
    job = Job("j", "/x", "q", (("a", "b"),), (1, 2), ((1.0, 2.0, 1),), (0.0, 0.0, 5.0, 5.0), 9, True)
    assert Job.from_json(job.to_json()) == job
    assert Job.from_json(Job("j", "/x", "q").to_json()) == Job("j", "/x", "q")


def test_images_are_read_once_until_they_change(studies: Path) -> None:
    images = Images()
    first = images.get(studies / "pic.png")
    assert images.get(studies / "pic.png") is first
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(studies / "pic.png")
    assert images.get(studies / "pic.png") is not first
    for n in range(6):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(studies / f"{n}.png")
        images.get(studies / f"{n}.png")
    assert len(images._read) == 4
    with pytest.raises(ImageError):
        images.get(studies / "missing.png")
    with pytest.raises(ImageError):
        images.get(studies.parent / "no-folder" / "x.nii")


class Confused(FakePredictor):
    """Its masks are not on the picture's grid."""

    def ask(self, question: str, history: Any = (), **options: Any) -> Any:
        reply = super().ask("liver")
        object.__setattr__(reply.findings[0], "mask", np.zeros((3, 3), bool))
        return reply


def test_a_predictor_that_draws_on_another_grid_is_not_ready(tmp_path: Path) -> None:
    golden(FakePredictor(), tmp_path)
    with pytest.raises(CheckpointError, match="wrong form"):
        golden(Confused(), tmp_path)


def test_a_factory_is_an_import_path() -> None:
    assert build("fake_predictor:make", "/x", "cpu").version == "fake-1"
    assert build("fake_predictor:make", "/x", "auto").version == "fake-1"


@pytest.fixture
def line() -> tuple[Connection, Connection]:
    """Both ends of a line."""
    return Pipe()


def heard(end: Connection) -> list[dict[str, Any]]:
    messages = []
    while end.poll(0):
        messages.append(decode(end.recv_bytes()))
        for _ in range(messages[-1].get("masks", 0)):
            messages[-1].setdefault("bits", []).append(end.recv_bytes())
    return messages


def test_the_engine_sends_the_reply_and_then_its_masks(
    line: tuple[Connection, Connection], studies: Path
) -> None:
    Engine(line[0])._answer(FakePredictor(), Job("j", str(studies / "pic.png"), "liver and kidney"))
    last = heard(line[1])[-1]
    assert last["event"] == "done" and len(last["bits"]) == 2


def test_the_engine_outlives_defects_and_logs_their_place_only(
    line: tuple[Connection, Connection], studies: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(line[0])
    with caplog.at_level(logging.ERROR):
        engine._answer(FakePredictor(), Job("j", str(studies / "pic.png"), "crash Xylophone"))
    engine._cancelled.add("k")
    engine._answer(FakePredictor(), Job("k", str(studies / "pic.png"), "slowly 9"))
    internal, cancelled = heard(line[1])
    assert (internal["event"], internal["kind"]) == ("error", "internal")
    assert cancelled["kind"] == "Cancelled" and not engine._cancelled
    assert "KeyError" in caplog.text and "Xylophone" not in caplog.text + str(internal)


def test_a_load_that_fails_is_reported(
    line: tuple[Connection, Connection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(line[0])
    monkeypatch.setattr(engine, "_listen", lambda: None)
    assert engine.run("fake_predictor:make", str(tmp_path / "broken"), "cpu") == 1
    assert heard(line[1]) == [
        {"event": "failed", "kind": "CheckpointError", "sentence": "The checkpoint is broken on purpose."}
    ]


class Boundless(FakePredictor):
    """Its reply cannot be written as JSON."""

    def ask(self, question: str, history: Any = (), **options: Any) -> Any:
        reply = super().ask(question)
        reply.latencies_ms["total_ms"] = float("nan")
        return reply


def test_a_reply_that_cannot_be_sent_is_an_error_and_not_the_end(
    line: tuple[Connection, Connection], studies: Path
) -> None:
    engine = Engine(line[0])
    engine._answer(Boundless(), Job("j", str(studies / "pic.png"), "liver"))
    engine._answer(FakePredictor(), Job("k", str(studies / "pic.png"), "liver"))
    ends = [m for m in heard(line[1]) if m["event"] in ("done", "error")]
    assert [m["event"] for m in ends] == ["error", "done"] and ends[0]["kind"] == "internal"
