"""Looks ahead: only an idle model looks, and a question that comes meanwhile goes first."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path

from medsegr.web.jobs import Event, EventKind, Job
from medsegr.web.process import WorkerState
from medsegr.web.worker import ModelWorker

Make = Callable[..., ModelWorker]
ENDS = (EventKind.DONE, EventKind.ERROR)


def ready(make_worker: Make) -> ModelWorker:
    worker = make_worker()
    assert worker.idle_s == 0.0
    worker.start()
    end = time.monotonic() + 60
    while worker.state is not WorkerState.READY:
        assert time.monotonic() < end
        time.sleep(0.02)
    return worker


def last(news: queue.SimpleQueue[Event]) -> Event:
    while True:
        event = news.get(timeout=60)
        if event.kind in ENDS:
            return event


def test_an_idle_model_looks_and_a_question_puts_the_look_off(make_worker: Make, studies: Path) -> None:
    worker = ready(make_worker)
    looked: queue.SimpleQueue[Event] = queue.SimpleQueue()
    picture, volume = str(studies / "pic.png"), str(studies / "vol.nii.gz")
    assert worker.look(Job("look-1", picture, ""), looked.put)
    done = last(looked)
    assert done.kind is EventKind.DONE and done.data["look"]["version"] == "fake-1"
    assert worker.look(Job("look-2", volume, ""), looked.put)
    assert last(looked).data["look"]["entropy"] == 4.0, "four findings, each as good as not"

    asked: queue.SimpleQueue[Event] = queue.SimpleQueue()
    worker.submit(Job("a", picture, "slowly 1 liver"), asked.put)
    assert worker.idle_s == 0.0 and not worker.look(Job("look-3", picture, ""), looked.put)
    assert last(asked).data["text"] == "Found liver."
    time.sleep(0.1)
    assert 0.0 < worker.idle_s < 10.0


def test_a_question_is_told_nothing_of_a_look_that_runs(make_worker: Make, studies: Path) -> None:
    worker = ready(make_worker)
    endings = set()
    for n in range(20):  # at every moment of a look
        looked: queue.SimpleQueue[Event] = queue.SimpleQueue()
        asked: queue.SimpleQueue[Event] = queue.SimpleQueue()
        assert worker.look(Job(f"look-{n}", str(studies / "vol.nii.gz"), ""), looked.put)
        time.sleep(n * 0.0005)
        assert worker.submit(Job(f"a-{n}", str(studies / "pic.png"), "liver"), asked.put) == 0
        assert last(asked).data["text"] == "Found liver."
        end = last(looked)
        endings.add(end.kind)
        assert end.kind is EventKind.DONE or end.data["kind"] == "Cancelled"
    assert EventKind.ERROR in endings


def test_an_image_that_cannot_be_read_costs_one_look(make_worker: Make, studies: Path) -> None:
    worker = ready(make_worker)
    (studies / "bad.png").write_bytes(b"no picture")
    looked: queue.SimpleQueue[Event] = queue.SimpleQueue()
    assert worker.look(Job("look", str(studies / "bad.png"), ""), looked.put)
    end = last(looked)
    assert end.kind is EventKind.ERROR and end.data["kind"] == "ImageError"
    assert worker.look(Job("look-2", str(studies / "pic.png"), ""), looked.put)
    assert last(looked).kind is EventKind.DONE
