"""Another checkpoint takes over: beside the old one, between two questions, and back again in no time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from test_worker import Heard
from version_folders import write_version

from medsegr.errors import CheckpointError
from medsegr.web.errors import Refusal
from medsegr.web.jobs import EventKind
from medsegr.web.process import WorkerSettings, WorkerState
from medsegr.web.worker import ModelWorker


def ended(pid: int, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Checkpoints "one" and "two", and one that does not load."""
    made = [write_version(tmp_path / name, f"fake-{name}") for name in ("one", "two", "broken")]
    return [str(folder) for folder in made]


@pytest.fixture
def worker(folders: list[str]) -> Iterator[ModelWorker]:
    made = ModelWorker(WorkerSettings(folders[0], "fake_predictor:make", "cpu"))
    yield made
    made.close()


def test_a_running_question_ends_on_the_version_it_began_with(
    worker: ModelWorker, folders: list[str], studies: Path
) -> None:
    picture = studies / "pic.png"
    assert Heard(worker, "a", picture, "liver").end().data["model_version"] == "fake-one"
    first = worker.pid
    assert first is not None
    model = worker.prepare(folders[1])
    running = Heard(worker, "b", picture, "slowly 3 liver")
    waiting = Heard(worker, "c", picture, "liver")
    running.until(EventKind.STARTED)
    worker.swap(model)
    assert worker.info and worker.info.version == "fake-two" and worker.checkpoint == folders[1]
    later = Heard(worker, "d", picture, "spleen")
    end = running.end()
    assert (end.kind, end.data["model_version"]) == (EventKind.DONE, "fake-one") and len(end.masks) == 1
    assert [h.end().data["model_version"] for h in (waiting, later)] == ["fake-two", "fake-two"]
    assert worker.pid == model.pid and ended(first)
    # A process that dies afterwards is replaced by one of the same version.
    second = model.pid
    assert second is not None
    os.kill(second, signal.SIGKILL)
    answers = [Heard(worker, str(n), picture, "liver").end() for n in range(2)]
    assert answers[-1].data["model_version"] == "fake-two"


def test_one_that_cannot_be_loaded_leaves_the_old_one_in_charge(
    worker: ModelWorker, folders: list[str], studies: Path
) -> None:
    Heard(worker, "a", studies / "pic.png", "liver").end()
    first = worker.pid
    with pytest.raises(CheckpointError, match="broken on purpose"):
        worker.swap(worker.prepare(folders[2]))
    assert worker.pid == first and worker.state is WorkerState.READY and worker.checkpoint == folders[0]
    assert Heard(worker, "b", studies / "pic.png", "liver").end().data["model_version"] == "fake-one"
    worker.close()
    with pytest.raises(Refusal, match="shutting down"):
        worker.swap(worker.prepare(folders[1]))


def test_one_that_never_gets_ready_is_ended(
    worker: ModelWorker, tmp_path: Path, studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Heard(worker, "a", studies / "pic.png", "liver").end()
    hanging = str(write_version(tmp_path / "hangs", "fake-hangs"))
    monkeypatch.setattr("medsegr.web.process.LOAD_S", 0.3)
    with pytest.raises(Refusal, match="was not loaded within 0.005 minutes") as refused:
        worker.prepare(hanging)
    assert refused.value.status == 503
    commands = [child.cmdline() for child in psutil.Process().children()]
    assert not any(f"--checkpoint={hanging}" in command for command in commands)
    assert Heard(worker, "b", studies / "pic.png", "liver").end().data["model_version"] == "fake-one"


def test_going_back_to_what_is_held_takes_no_time_and_also_works_while_a_question_runs(
    worker: ModelWorker, folders: list[str], studies: Path
) -> None:
    picture = studies / "pic.png"
    Heard(worker, "a", picture, "liver").end()
    first = worker.pid
    worker.hold(folders[0])
    worker.swap(worker.prepare(folders[1]))
    assert Heard(worker, "b", picture, "liver").end().data["model_version"] == "fake-two"
    running = Heard(worker, "c", picture, "slowly 2 liver")
    running.until(EventKind.STARTED)
    began = time.monotonic()
    worker.swap(worker.prepare(folders[0]))
    assert time.monotonic() - began < 1.0
    assert running.end().data["model_version"] == "fake-two"
    assert Heard(worker, "d", picture, "liver").end().data["model_version"] == "fake-one"
    assert worker.pid == first
    # Changed minds while a question runs: the process that answers it stays in charge.
    other = worker.prepare(folders[1])
    running = Heard(worker, "e", picture, "slowly 2 liver")
    running.until(EventKind.STARTED)
    worker.swap(other)
    worker.swap(worker.prepare(folders[0]))
    assert running.end().data["model_version"] == "fake-one"
    assert Heard(worker, "f", picture, "liver").end().data["model_version"] == "fake-one"
    assert worker.pid == first and ended(other.pid or 0)


def test_what_is_held_is_loaded_ahead_and_let_go(
    worker: ModelWorker, folders: list[str], studies: Path
) -> None:
    Heard(worker, "a", studies / "pic.png", "liver").end()
    worker.hold(folders[1])
    worker.warm()
    began = time.monotonic()
    kept = worker.prepare(folders[1])
    assert time.monotonic() - began < 0.5 and kept.info and kept.info.version == "fake-two"
    pid = kept.pid
    worker.discard(kept)
    assert kept.alive
    worker.hold(None)
    assert pid is not None and ended(pid)
    assert Heard(worker, "b", studies / "pic.png", "liver").end().data["model_version"] == "fake-one"


def test_a_look_ahead_makes_way_for_a_question(
    worker: ModelWorker, studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = studies / "pic.png"
    looks: list[object] = []

    def look(name: str) -> bool:
        from medsegr.web.jobs import Job

        return worker.look(Job(id=name, image=str(picture), question="slowly 60 liver"), looks.append)

    assert not look("early") and worker.idle_s == 0  # no model yet
    Heard(worker, "a", picture, "liver").end()
    time.sleep(0.1)
    assert worker.idle_s > 0
    # The process takes a look for a question here, so that its length can be told.
    monkeypatch.setattr("medsegr.web.worker.ASK", {True: "ask", False: "ask"})
    assert look("b")
    end = time.monotonic() + 10
    while time.monotonic() < end and not looks:
        time.sleep(0.05)
    assert not look("c") and worker.idle_s > 0
    began = time.monotonic()
    question = Heard(worker, "d", picture, "liver")
    assert question.place == 0 and question.end().kind is EventKind.DONE
    assert time.monotonic() - began < 20
    assert looks[-1].kind is EventKind.ERROR and looks[-1].data["kind"] == "Cancelled"  # type: ignore[attr-defined]
