"""The service without routes: blocking questions, and what happens when storing or queueing fails."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from sqlalchemy.exc import OperationalError

from medsegr.errors import ImageError, QuestionError
from medsegr.rounds.store import TurnStatus
from medsegr.web.errors import Refusal, revive, status_of
from medsegr.web.image_files import ImageFile
from medsegr.web.jobs import Event, EventKind, Job
from medsegr.web.requests import AskOptions
from medsegr.web.service import Service, Update


@pytest.fixture
def picture(studies: Path) -> ImageFile:
    """The picture of the studies."""
    return ImageFile("pic", studies / "pic.png")


def test_a_blocking_question_and_its_two_kinds_of_map(
    service: Service, picture: ImageFile, tmp_path: Path
) -> None:
    outcome = service.ask(AskOptions(question="spleen and liver"), picture)
    assert outcome.params["label_names"] == {"liver": 1, "spleen": 2}
    for fixed, wanted in ((False, {0, 1, 2}), (True, {0, 1, 3})):
        path = service.write_map(outcome, picture, tmp_path, ".nrrd", fixed=fixed)
        assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))) == wanted


def test_a_refusal_of_the_model_is_raised_and_stored(service: Service, picture: ImageFile) -> None:
    with pytest.raises(QuestionError):
        service.ask(AskOptions(question="refuse"), picture)
    assert [turn.status for turn in service.store.turns()] == [TurnStatus.FAILED]


def test_a_reply_that_cannot_be_stored_is_an_error_not_silence(
    service: Service, picture: ImageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(service.store, "finish", full)
    with pytest.raises(Refusal, match="stored"):
        service.ask(AskOptions(question="liver"), picture)
    assert [turn.status for turn in service.store.turns()] == [TurnStatus.FAILED]


def test_a_full_queue_leaves_no_open_turn(
    service: Service, picture: ImageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> int:
        raise Refusal(429, "Too many questions are waiting.")

    monkeypatch.setattr(service.worker, "submit", full)
    with pytest.raises(Refusal):
        service.ask(AskOptions(question="liver"), picture)
    assert [turn.status for turn in service.store.turns()] == [TurnStatus.FAILED]


@pytest.mark.parametrize("end", ["liver", "refuse", "crash", "die", "full", "unstored", "cancelled"])
def test_files_are_held_for_as_long_as_a_question_lasts(
    service: Service, picture: ImageFile, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    held: list[int] = []

    def hold() -> Callable[[], None]:
        held.append(1)
        return held.pop

    def full(*_args: object, **_more: object) -> int:
        raise Refusal(429, "Too many questions are waiting.")

    if end == "full":
        monkeypatch.setattr(service.worker, "submit", full)
    if end == "unstored":
        monkeypatch.setattr(service.store, "finish", full)
    news: queue.SimpleQueue[Update] = queue.SimpleQueue()
    question, image = "slowly 30" if end == "cancelled" else end, replace(picture, hold=hold)
    try:
        turn = service.submit(AskOptions(question=question), image, news.put)
    except Refusal:
        assert end == "full" and held == []
        return
    assert held == [1] or not news.empty()
    if end == "cancelled":
        service.cancel(turn)
    while not news.get(timeout=60).last:
        pass
    assert held == []


def test_errors_keep_their_kind_across_processes() -> None:
    for kind, status in (
        ("ImageError", 422),
        ("Cancelled", 409),
        ("CheckpointError", 503),
        ("died", 503),
        ("internal", 500),
    ):
        assert status_of(revive(kind, "A sentence.")) == status
    assert isinstance(revive("ImageError", "A sentence."), ImageError)
    assert status_of(revive("annotations", "Not an error class.")) == 500


def test_queued_is_told_before_started_even_if_the_model_is_quicker(
    service: Service, picture: ImageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(_job: Job, listener: Callable[[Event], None]) -> int:
        thread = threading.Thread(target=listener, args=(Event(EventKind.STARTED),))
        thread.start()
        thread.join(0.1)
        return 0

    monkeypatch.setattr(service.worker, "submit", at_once)
    heard: queue.SimpleQueue[Update] = queue.SimpleQueue()
    service.submit(AskOptions(question="liver"), picture, heard.put)
    assert [heard.get(timeout=5).kind for _ in range(2)] == [EventKind.QUEUED, EventKind.STARTED]


def test_a_failure_that_cannot_be_stored_is_told_all_the_same(
    service: Service, picture: ImageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_args: object) -> None:
        raise OperationalError("update", {}, Exception("database is locked"))

    monkeypatch.setattr(service.store, "close", locked)
    heard: queue.SimpleQueue[Update] = queue.SimpleQueue()
    service.submit(AskOptions(question="refuse"), picture, heard.put)
    while not (update := heard.get(timeout=20)).last:
        pass
    assert isinstance(update.error, QuestionError)


def test_a_map_with_fixed_ids_never_claims_that_nothing_was_found(
    service: Service, picture: ImageFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = service.ask(AskOptions(question="spleen and liver"), picture)
    service.targets = ("gallbladder", "liver")
    path = service.write_map(outcome, picture, tmp_path, ".nrrd", fixed=True)
    assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))) == {0, 2}
    assert "1 of 2 findings" in caplog.text and "spleen" not in caplog.text
    service.targets = ("gallbladder",)
    with pytest.raises(Refusal, match="not among this server's labels") as caught:
        service.write_map(outcome, picture, tmp_path, ".nrrd", fixed=True)
    assert caught.value.status == 422
    service.write_map(outcome, picture, tmp_path, ".nrrd", fixed=False)
    empty = service.ask(AskOptions(question="nothing"), picture)
    service.write_map(empty, picture, tmp_path, ".nrrd", fixed=True)
