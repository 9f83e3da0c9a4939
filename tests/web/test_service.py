"""The service without routes: blocking questions, and what happens when storing or queueing fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medsegr.errors import ImageError, QuestionError
from medsegr.rounds.store import TurnStatus
from medsegr.web.errors import Refusal, revive, status_of
from medsegr.web.requests import AskOptions
from medsegr.web.service import ImageFile, Service


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
