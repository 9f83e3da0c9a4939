"""The demo's parts that need no server: images, verdicts, the contact sheet. `make demo` runs the whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from questions import QUESTIONS, Answer, Question
from rich.console import Console
from run import clear, invite, measured, note, report, weakness
from server import Server, ServerError
from sheet import GAP, SIDE, TEXT, contact_sheet
from studies import Studies, prepare, write_dicom

from medsegr.dicom.folder import DicomFolder
from medsegr.errors import MedSegRError
from medsegr.imaging import Picture, Volume, read_image


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    return prepare(tmp_path_factory.mktemp("demo") / "studies")


def answered(question: Question, *found: tuple[str, Any], text: str = "An answer.") -> Answer:
    findings = [
        {"n": n, "label": label, "phrase": label, "confidence": 0.5, "area_px": 3}
        for n, (label, _) in enumerate(found, start=1)
    ]
    params = {"answer": text, "findings": findings, "model_version": "t", "weights_licence": "CC0"}
    return Answer(question, params, tuple(mask for _, mask in found), 1.5)


LIVER, URINE = QUESTIONS[3], QUESTIONS[4]


def test_six_questions_of_every_kind_about_images_that_exist(studies: Studies) -> None:
    assert len(QUESTIONS) == 6
    kinds = " ".join(q.kind for q in QUESTIONS)
    assert all(word in kinds for word in ("implicit", "explicit", "follow-up", "not present", "whole volume"))
    for before, question in zip((None, *QUESTIONS), QUESTIONS, strict=False):
        assert studies.path(question.image).is_file()
        if question.follows:
            assert before is not None
            assert before.image == question.image


def test_every_image_can_be_read_and_the_torso_is_on_the_grid_of_its_masks(studies: Studies) -> None:
    images = {name: read_image(studies.path(name)) for name in {q.image for q in QUESTIONS}}
    assert isinstance(images["CT_small"], Picture)
    assert images["CT_small"].modality == "CT"
    torso = images["torso"]
    assert isinstance(torso, Volume)
    assert torso.modality == "CT"
    assert torso.shape == studies.truth("liver").shape
    assert np.array_equal(torso.voxels, studies.torso.volume.voxels)


def test_dice_is_taken_over_all_findings_that_the_question_is_about(studies: Studies) -> None:
    left, right = studies.truth("left kidney"), studies.truth("right kidney")
    both = answered(URINE, ("left kidney", left), ("right kidney", right), ("liver", studies.truth("liver")))
    assert measured(both, studies) == 1.0
    one = answered(URINE, ("left kidney", left))
    expected = 2 * left.sum() / (2 * left.sum() + right.sum())
    assert measured(one, studies) == pytest.approx(expected)
    assert measured(answered(URINE), studies) == 0.0
    assert measured(answered(QUESTIONS[0]), studies) is None


def test_the_verdict_is_honest(studies: Studies) -> None:
    liver = studies.truth("liver")
    assert weakness(answered(LIVER, ("liver", liver)), studies) is None
    assert weakness(answered(LIVER), studies) == "It did not outline the liver."
    assert "Dice 0.00" in str(weakness(answered(LIVER, ("liver", studies.truth("spleen"))), studies))
    assert "spleen as well" in str(weakness(answered(LIVER, ("liver", liver), ("spleen", liver)), studies))
    absent = next(q for q in QUESTIONS if not q.expects)
    assert weakness(answered(absent), studies) is None
    assert "does not show" in str(weakness(answered(absent, ("fetal head", liver)), studies))


def test_the_sheet_has_a_tile_per_answer_and_draws_the_outline(studies: Studies) -> None:
    image = read_image(studies.path("torso"))
    answers = [answered(LIVER, ("liver", studies.truth("liver")), text="Long " * 200)] * 4
    notes = [note(answer, studies) for answer in answers]
    assert notes[0] == "liver 50%; 1.50 s; Dice 1.00 against the exact mask"
    sheet = contact_sheet(answers, [image] * 4, notes)
    assert sheet.size == (GAP + 3 * (SIDE + GAP), GAP + 2 * (SIDE + TEXT + GAP))
    tile = np.asarray(sheet.crop((GAP, GAP, GAP + SIDE, GAP + SIDE))).reshape(-1, 3)
    assert (tile == (230, 159, 0)).all(axis=1).sum() > 200
    between = np.asarray(sheet)[GAP + SIDE + TEXT : GAP + SIDE + TEXT + GAP]
    assert (between == between[0, 0]).all()  # no text runs into the next row


def test_the_report_names_the_weak_answers(studies: Studies) -> None:
    answers = [answered(question) for question in QUESTIONS]
    console = Console(file=io.StringIO(), width=200)
    report(console, answers, [note(a, studies) for a in answers], studies)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "It did not outline the liver." in text
    assert "not a medical device" in text


def test_the_last_lines_open_the_dicom_study_in_ohif(studies: Studies, tmp_path: Path) -> None:
    study = write_dicom(studies.torso, tmp_path / "dicom")
    volume = read_image(tmp_path / "dicom")
    assert isinstance(volume, Volume)
    assert np.array_equal(volume.voxels, studies.torso.volume.voxels)
    assert set(DicomFolder(tmp_path / "dicom", tmp_path / "index").index().studies) == {study}
    console = Console(file=io.StringIO(), width=80)
    invite(console, tmp_path / "dicom", study)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert f"  make serve STUDIES={tmp_path / 'dicom'}" in lines
    assert f"  http://127.0.0.1:8000/ohif/medsegr?StudyInstanceUIDs={study}" in lines
    assert f"  http://127.0.0.1:8000/ohif/monai-label?StudyInstanceUIDs={study}" in lines


def test_a_server_that_ends_at_once_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path, tmp_path, "embedded")
    script = "import sys; print('medsegr.errors.CheckpointError: No weights here.'); sys.exit(3)"
    monkeypatch.setattr(server, "_command", [server._command[0], "-c", script])
    with pytest.raises(ServerError, match="exit code 3: No weights here"), server:
        pass
    assert "No weights here." in server.tail()


def test_somebody_elses_folder_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    with pytest.raises(MedSegRError, match="--out"):
        clear(tmp_path)
    assert (tmp_path / "studies").is_dir()
    clear(tmp_path / "new")
    (tmp_path / "new" / "state").mkdir()
    clear(tmp_path / "new")
    assert not (tmp_path / "new" / "state").exists()
