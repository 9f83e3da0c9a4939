"""The queue and the model's process: order, cancel, death and revival."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegr.web.errors import Refusal
from medsegr.web.jobs import Event, EventKind, Job
from medsegr.web.process import WorkerState
from medsegr.web.worker import ModelWorker

Make = Callable[..., ModelWorker]
ENDS = (EventKind.DONE, EventKind.ERROR)


class Heard:
    """Everything a listener was told about one job."""

    def __init__(self, worker: ModelWorker, job_id: str, path: Path, question: str, **more: object) -> None:
        self.events: list[Event] = []
        self._news: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.place = worker.submit(Job(id=job_id, image=str(path), question=question, **more), self._news.put)

    def until(self, *kinds: EventKind, timeout: float = 60) -> Event:
        while True:
            event = self._news.get(timeout=timeout)
            self.events.append(event)
            if event.kind in kinds:
                return event

    def end(self) -> Event:
        return self.until(*ENDS)


def test_one_question(make_worker: Make, studies: Path) -> None:
    worker = make_worker()
    heard = Heard(worker, "a", studies / "pic.png", "liver and spleen")
    end = heard.end()
    assert end.kind is EventKind.DONE and end.data["text"] == "Found liver and spleen."
    assert [f["label"] for f in end.data["findings"]] == ["liver", "spleen"]
    assert end.data["findings"][0] | {} == {
        "label": "liver", "phrase": "the liver", "confidence": 0.5, "slices": None, "area_px": 9,
    }  # fmt: skip
    mask = np.unpackbits(np.frombuffer(end.masks[0], np.uint8), count=600).reshape(20, 30)
    assert mask[:3, :3].all() and mask.sum() == 9
    assert [e.kind for e in heard.events][0] is EventKind.STARTED
    assert (
        "".join(e.data["piece"] for e in heard.events if e.kind is EventKind.TEXT).strip()
        == "Found liver and spleen."
    )
    assert worker.state is WorkerState.READY and worker.info and worker.info.version == "fake-1"


def test_a_volume_is_measured_and_its_slices_can_be_chosen(make_worker: Make, studies: Path) -> None:
    worker = make_worker()
    whole = Heard(worker, "a", studies / "vol.nii.gz", "kidney").end().data
    assert whole["findings"][0]["slices"] == [0, 5]
    assert whole["findings"][0]["volume_ml"] == pytest.approx(6 * 6 * 6 * 0.75 / 1000, abs=1e-3)
    assert np.allclose(whole["geometry"]["affine"], np.diag([-0.5, -0.5, 3, 1]))
    some = Heard(worker, "b", studies / "vol.nii.gz", "kidney", slices=(2, 3)).end().data
    assert some["findings"][0]["slices"] == [2, 3]
    middle = Heard(worker, "c", studies / "vol.nii.gz", "kidney", one_slice=True).end().data
    assert middle["findings"][0]["slices"] == [3, 3]
    beyond = Heard(worker, "d", studies / "vol.nii.gz", "kidney", slices=(2, 7)).end().data
    assert beyond["kind"] == "QuestionError" and "0 to 6" in beyond["sentence"]
    clicked = Heard(worker, "e", studies / "vol.nii.gz", "kidney", points=((1, 1, 1),)).end().data
    assert clicked["kind"] == "QuestionError"


def test_first_come_first_served_with_places(make_worker: Make, studies: Path) -> None:
    worker = make_worker()
    heard = [Heard(worker, str(n), studies / "pic.png", "slowly 0.3 liver") for n in range(3)]
    assert [h.place for h in heard] == [0, 1, 2]
    ends = [h.end() for h in heard]
    assert all(e.kind is EventKind.DONE for e in ends)
    assert [e.data["place"] for e in heard[2].events if e.kind is EventKind.QUEUED] == [2, 1]


def test_cancel_a_waiting_and_a_running_question(make_worker: Make, studies: Path) -> None:
    worker = make_worker()
    running = Heard(worker, "a", studies / "pic.png", "slowly 30 liver")
    waiting = Heard(worker, "b", studies / "pic.png", "liver")
    running.until(EventKind.STARTED)
    assert worker.cancel("b") and waiting.end().data["kind"] == "Cancelled"
    began = time.monotonic()
    assert worker.cancel("a") and running.end().data["kind"] == "Cancelled"
    assert time.monotonic() - began < 3
    assert not worker.cancel("a") and not worker.cancel("nobody")
    assert Heard(worker, "c", studies / "pic.png", "liver").end().kind is EventKind.DONE


def test_a_process_that_does_not_stop_is_replaced(make_worker: Make, studies: Path) -> None:
    worker = make_worker(cancel_grace_s=0.3)
    heard = Heard(worker, "a", studies / "pic.png", "slowly 30 liver")
    heard.until(EventKind.STARTED)
    first = worker.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    assert worker.cancel("a") and heard.end().data["kind"] == "Cancelled"
    assert Heard(worker, "b", studies / "pic.png", "liver").end().kind is EventKind.DONE
    assert worker.pid != first


def test_death_fails_the_running_question_only(make_worker: Make, studies: Path) -> None:
    worker = make_worker()
    dying = Heard(worker, "a", studies / "pic.png", "die")
    next_one = Heard(worker, "b", studies / "pic.png", "liver")
    end = dying.end()
    assert end.data["kind"] == "died" and "ask again" in end.data["sentence"]
    assert next_one.end().kind is EventKind.DONE


def test_after_a_death_the_model_comes_back_without_being_asked(make_worker: Make, studies: Path) -> None:
    worker = make_worker()
    assert Heard(worker, "a", studies / "pic.png", "die").end().data["kind"] == "died"
    end = time.monotonic() + 60
    while worker.state is not WorkerState.READY and time.monotonic() < end:
        time.sleep(0.05)
    assert worker.state is WorkerState.READY and worker.pid is not None


def test_an_idle_death_is_noticed(make_worker: Make, studies: Path) -> None:
    worker = make_worker()
    Heard(worker, "a", studies / "pic.png", "liver").end()
    first = worker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    end = time.monotonic() + 60
    while time.monotonic() < end and (worker.pid in (None, first) or worker.state is not WorkerState.READY):
        time.sleep(0.1)
    assert worker.pid not in (None, first) and worker.state is WorkerState.READY


def test_errors_are_sentences_and_defects_name_no_question(
    make_worker: Make, studies: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    worker = make_worker()
    refused = Heard(worker, "a", studies / "pic.png", "refuse").end().data
    assert refused == {"kind": "QuestionError", "sentence": "The question cannot be answered."}
    broken = tmp_path / "broken.png"
    broken.write_bytes((studies / "pic.png").read_bytes()[:60])
    assert Heard(worker, "b", broken, "liver").end().data["kind"] == "ImageError"
    assert Heard(worker, "c", tmp_path / "missing.png", "liver").end().data["kind"] == "ImageError"
    crashed = Heard(worker, "d", studies / "pic.png", "crash Xylophone").end().data
    assert crashed["kind"] == "internal" and "KeyError" in crashed["sentence"]
    assert Heard(worker, "e", studies / "pic.png", "liver").end().kind is EventKind.DONE
    worker.close()
    printed = capfd.readouterr()
    assert "fake_predictor.py" in printed.err and "Xylophone" not in printed.out + printed.err + str(crashed)


def test_a_checkpoint_that_does_not_load_fails_questions_with_its_sentence(
    make_worker: Make, studies: Path
) -> None:
    worker = make_worker("broken")
    for name in ("a", "b"):
        assert (
            Heard(worker, name, studies / "pic.png", "liver").end().data["sentence"]
            == "The checkpoint is broken on purpose."
        )
    assert worker.state is WorkerState.FAILED
    dead = make_worker("dies")
    assert Heard(dead, "a", studies / "pic.png", "liver").end().data["kind"] == "died"


@pytest.mark.parametrize(("promised", "state"), [(0.9, WorkerState.READY), (1.01, WorkerState.FAILED)])
def test_the_golden_question_of_a_checkpoint_is_asked_at_start(
    make_worker: Make, studies: Path, tmp_path: Path, promised: float, state: WorkerState
) -> None:
    worker = make_worker()
    checkpoint = tmp_path / "checkpoint"
    truth = np.zeros((20, 30), np.uint8)
    truth[:3, :3] = 255
    Image.fromarray(truth).save(checkpoint / "mask.png")
    case = {
        "image": "../studies/pic.png",
        "question": "liver",
        "label": "liver",
        "mask": "mask.png",
        "min_dice": promised,
    }
    (checkpoint / "golden.json").write_text(json.dumps(case))
    Heard(worker, "a", studies / "pic.png", "liver").end()
    assert worker.state is state
    assert (worker.failure is None) == (state is WorkerState.READY)


def test_the_queue_is_bounded_and_a_closed_worker_refuses(make_worker: Make, studies: Path) -> None:
    worker = make_worker(max_waiting=1)
    running = Heard(worker, "a", studies / "pic.png", "slowly 30 liver")
    running.until(EventKind.STARTED)
    Heard(worker, "b", studies / "pic.png", "liver")
    with pytest.raises(Refusal) as caught:
        Heard(worker, "c", studies / "pic.png", "liver")
    assert caught.value.status == 429
    worker.close()
    assert running.end().kind is EventKind.ERROR
    with pytest.raises(Refusal, match="shutting down"):
        Heard(worker, "d", studies / "pic.png", "liver")


def test_a_killed_server_leaves_no_orphan(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import time
        from medsegr.web.process import WorkerSettings
        from medsegr.web.worker import ModelWorker
        worker = ModelWorker(WorkerSettings({str(tmp_path)!r}, "fake_predictor:make", "cpu"))
        worker.start()
        while worker.state != "ready":
            time.sleep(0.05)
        print(worker.pid, flush=True)
        time.sleep(60)
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        child = int(server.stdout.readline())
        server.kill()
    end = time.monotonic() + 5
    while time.monotonic() < end and Path(f"/proc/{child}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_a_line_that_carries_nonsense_fails_one_question_and_not_the_queue(
    make_worker: Make, studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker()
    Heard(worker, "a", studies / "pic.png", "liver").end()
    with monkeypatch.context() as patched:
        patched.setattr("medsegr.web.worker.decode", lambda frame: json.loads(b"\xff"))
        assert Heard(worker, "b", studies / "pic.png", "liver").end().data["kind"] == "died"
    assert Heard(worker, "c", studies / "pic.png", "liver").end().kind is EventKind.DONE
