"""What a correction leaves for learning: scores, a split, slices and a row of the audit; and that nothing of it can harm the
correction.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from correction_forms import AFFINE, PICTURE, VOLUME, block, finished, form, label_form
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydicom.data import get_testdata_file

from medsegr.imaging import Volume, read_image
from medsegr.imaging.dicom_series import stacks
from medsegr.rounds.audit import Audit
from medsegr.rounds.capture import capture
from medsegr.rounds.cases import Case
from medsegr.rounds.corrections import Correction, CorrectionStore, NewCorrection, Origin, Verdict
from medsegr.rounds.errors import StoreError
from medsegr.rounds.ledger import Ledger
from medsegr.rounds.scores import Scores
from medsegr.rounds.store import NewTurn, TurnStore
from medsegr.rounds.tables import PatientRow, Split
from medsegr.rounds.withdrawals import remove_patient, withdraw, withdrawn
from medsegr.web import learning
from medsegr.web.asked_slices import asked_slices, keep_asked
from medsegr.web.correcting import pack
from medsegr.web.corrections import corrections_router
from medsegr.web.errors import Refusal
from medsegr.web.image_files import ImageFile
from medsegr.web.label_upload import LabelKeeper, label_router
from medsegr.web.learning import Learner
from medsegr.web.masks import Geometry


class Archive:
    """Stands for the datastore; `away` lets every image be missing."""

    def __init__(self, studies: Path) -> None:
        self.away, self.held = False, 0
        self.images = {
            "pic": ImageFile("pic", studies / "pic.png"),
            "vol": ImageFile("vol", studies / "vol.nii.gz", hold=self.hold),
        }

    def find(self, image_id: str) -> ImageFile:
        if self.away or image_id not in self.images:
            raise Refusal(404, "There is no such image.")
        return self.images[image_id]

    def hold(self) -> Any:
        self.held += 1

        def release() -> None:
            self.held -= 1

        return release


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[TurnStore]:
    store = TurnStore(tmp_path / "state")
    yield store
    store.dispose()


@pytest.fixture
def archive(studies: Path) -> Archive:
    return Archive(studies)


@pytest.fixture
def learner(turns: TurnStore, archive: Archive, studies: Path) -> Learner:
    return Learner(turns, archive.find, studies)


@pytest.fixture
def client(turns: TurnStore, archive: Archive, learner: Learner) -> Iterator[TestClient]:
    corrections = CorrectionStore(turns.database)
    keeper = LabelKeeper(lambda image, path, tag, info: f"label-{image}", lambda image, label: {})
    app = FastAPI()
    app.include_router(corrections_router(turns, corrections, learner=learner))
    app.include_router(label_router(turns, corrections, archive.find, keeper, learner=learner))
    with TestClient(app) as made:
        yield made


def store(
    turns: TurnStore,
    masks: dict[str, np.ndarray],
    turn: str | None = None,
    image: str = "vol",
    geometry: Geometry = VOLUME,
    verdict: Verdict = Verdict.EDITED,
) -> Correction:
    findings = tuple(pack(None, label, mask) for label, mask in masks.items())
    new = NewCorrection(
        image, "ann", verdict, Origin.PANEL, findings, geometry.shape, geometry.to_json(), turn, None, "Why."
    )
    return CorrectionStore(turns.database).add(new)


def cases(learner: Learner) -> list[Case]:
    return learner.cases.cases()


def actions(turns: TurnStore) -> list[str]:
    return [entry.action for entry in Audit(turns.database).entries()]


def test_an_edit_by_the_panel_leaves_a_case_a_score_and_a_row(
    client: TestClient, turns: TurnStore, learner: Learner, archive: Archive
) -> None:
    turn = finished(turns, {"liver": block(VOLUME, 4)})
    smaller = block(VOLUME, 3)
    header = _header(smaller)
    body = {"turn_id": turn, "verdict": "edited", "findings": [{"n": 1, "label": "liver", "mask": "m"}]}
    reply = client.post("/medsegr/corrections", files=form(body, m=header))
    assert reply.status_code == 201, reply.text
    (case,) = cases(learner)
    assert case.correction.id == reply.json()["id"] and case.question == "Where?"
    (score,) = Scores(turns.database).of()
    assert (score.label, score.model_version) == ("liver", "v7")
    assert score.dice == pytest.approx(2 * 27 / (64 + 27))
    slices = learner.cases.read(case.correction.id)
    volume = read_image(archive.images["vol"].path)
    assert isinstance(volume, Volume)
    for place, k in enumerate(slices.index.tolist()):
        assert np.array_equal(slices.masks[0, place], volume.slice_from_volume(k, smaller))
    assert slices.masks.sum() == 27 and actions(turns) == ["correction", "assign", "case"]
    detail = Audit(turns.database).entries()[-1].detail
    assert detail == {"split": "train", "slices": case.slices, "sha256": case.sha256}
    assert archive.held == 0 and Audit(turns.database).verify() is None


def _header(mask: np.ndarray) -> bytes:
    """`mask` as a NIfTI file: the form takes any that lies on the grid."""
    import nibabel as nib

    return nib.Nifti1Image(mask.astype(np.uint8), AFFINE).to_bytes()


def test_a_label_of_a_stock_client_leaves_a_case(
    client: TestClient, turns: TurnStore, learner: Learner
) -> None:
    finished(turns, {"liver": block(VOLUME, 3)}, client="slicer")
    names = [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]
    files = label_form(_header(block(VOLUME, 3)), "x.nii", label_info=names, client_id="slicer")
    reply = client.put("/datastore/label?image=vol", files=files)
    assert (reply.status_code, reply.json()) == (200, {"image": "vol", "label": "label-vol"})
    (case,) = cases(learner)
    assert [f["label"] for f in case.correction.findings] == ["liver", "spleen"]
    assert [(s.label, s.dice) for s in Scores(turns.database).of()] == [("liver", 1.0)]
    assert learner.cases.read(case.correction.id).masks.shape[0] == 2


@pytest.mark.parametrize("broken", ["image", "disk", "database"])
def test_what_fails_harms_no_correction_and_is_made_up_for(
    client: TestClient,
    turns: TurnStore,
    learner: Learner,
    archive: Archive,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    turn = finished(turns, {"liver": block(VOLUME, 3)})
    with monkeypatch.context() as patch:
        if broken == "image":
            archive.away = True
        elif broken == "disk":
            patch.setattr("medsegr.rounds.cases.write_arrays", _raises(OSError("secret path")))
        else:
            patch.setattr(learner.database, "writing", _raises(RuntimeError("secret text")))
        reply = client.post(
            "/medsegr/corrections", files=form({"turn_id": turn, "verdict": "accepted", "findings": []})
        )
        assert reply.status_code == 201, reply.text
    assert CorrectionStore(turns.database).get(reply.json()["id"]).verdict is Verdict.ACCEPTED
    assert cases(learner) == [] and Ledger(turns.database).patients() == []
    kinds = {"image": "Refusal", "disk": "OSError", "database": "RuntimeError"}
    assert kinds[broken] in caplog.text and "secret" not in caplog.text
    assert "case" not in actions(turns)
    assert (learner.build_missing() == 0) == (broken == "image")
    archive.away = False
    assert learner.build_missing() == (1 if broken == "image" else 0)
    assert [case.correction.id for case in cases(learner)] == [reply.json()["id"]]
    assert actions(turns) == ["correction", "assign", "case"]
    assert [s.dice for s in Scores(turns.database).of()] == [1.0] and learner.build_missing() == 0


def test_a_score_that_failed_is_made_up_for_though_its_case_was_kept(
    turns: TurnStore, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = finished(turns, {"liver": block(VOLUME, 3)})
    with monkeypatch.context() as patch:
        patch.setattr(learning, "prequential", _raises(MemoryError()))
        kept = learner.learn(store(turns, {"liver": block(VOLUME, 3)}, turn))
        assert kept is not None and learner.build_missing() == 0 and Scores(turns.database).of() == []
    assert learner.build_missing() == 0
    assert [(s.correction_id, s.dice) for s in Scores(turns.database).of()] == [(kept.correction.id, 1.0)]
    learner.build_missing()
    assert actions(turns) == ["assign", "case", "correction"] and len(cases(learner)) == 1


def test_the_log_says_why_a_case_is_missing_and_names_nobody(
    turns: TurnStore, learner: Learner, archive: Archive, studies: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def learnt() -> str:
        caplog.clear()
        assert learner.learn(store(turns, {"disc": block(PICTURE, 5)}, image="pic", geometry=PICTURE)) is None
        assert "Meier" not in caplog.text
        return caplog.text

    for content in ("image;patient\nMeier;Meier\n", "Meier,Meier\n", "image,patient,Meier\nMeier,,Meier\n",
                    "image,patient\nMeier,Meier\nMeier,Meier 2\n"):  # fmt: skip
        (studies / "patients.csv").write_text(content)
        assert "StoreError: patients.csv " in learnt() and "one image a line" in caplog.text, content
    (studies / "patients.csv").unlink()
    (studies / "Meier.png").write_bytes(b"no image")
    archive.images["pic"] = ImageFile("pic", studies / "Meier.png")
    assert "ImageError" in learnt()  # its sentence names the file
    store(turns, {}, verdict=Verdict.REJECTED)  # teaches nothing: not missing
    out = store(turns, {"disc": block(PICTURE, 5)}, image="pic", geometry=PICTURE)
    assert learning.without_case(turns.database) == 6
    withdraw(turns.database, out.id, "chief", "Wrong.")
    assert learning.without_case(turns.database) == 5
    archive.images["pic"] = ImageFile("pic", studies / "pic.png")
    assert learner.build_missing() == 5 and learning.without_case(turns.database) == 0


def _raises(error: Exception) -> Any:
    def raising(*_: Any, **__: Any) -> Any:
        raise error

    return raising


def test_a_rejection_without_masks_teaches_nothing(turns: TurnStore, learner: Learner) -> None:
    turn = finished(turns, {"liver": block(VOLUME, 3)})
    assert learner.learn(store(turns, {}, turn, verdict=Verdict.REJECTED)) is None
    assert learner.build_missing() == 0 and cases(learner) == [] and actions(turns) == ["correction"]
    kept = learner.learn(store(turns, {"spleen": block(VOLUME, 2)}, turn, verdict=Verdict.REJECTED))
    assert kept is not None and kept.slices > 0


def test_not_present_is_taught_with_the_image_alone(turns: TurnStore, learner: Learner) -> None:
    kept = learner.learn(store(turns, {}, finished(turns, {}), verdict=Verdict.ACCEPTED))
    assert kept is not None and learner.cases.read(kept.correction.id).masks.shape[0] == 0


def test_a_picture_without_a_question_is_kept(turns: TurnStore, learner: Learner) -> None:
    kept = learner.learn(store(turns, {"disc": block(PICTURE, 5)}, image="pic", geometry=PICTURE))
    assert kept is not None and (kept.question, kept.slices, kept.modality) == ("", 1, None)
    slices = learner.cases.read(kept.correction.id)
    assert slices.rgb.shape == (1, 20, 30, 3) and np.array_equal(slices.masks[0, 0], block(PICTURE, 5))
    assert Scores(turns.database).of() == []
    assert learner.cases.ledger.patients()[0].stratum == "unknown"


def test_masks_of_another_grid_make_no_case(turns: TurnStore, learner: Learner) -> None:
    small = Geometry((4, 5))
    assert learner.learn(store(turns, {"disc": block(small, 2)}, image="pic", geometry=small)) is None
    assert cases(learner) == [] and Ledger(turns.database).patients() == []


def test_patients_are_known_by_list_or_image(
    turns: TurnStore, learner: Learner, archive: Archive, studies: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pic, vol = archive.images["pic"], archive.images["vol"]
    with caplog.at_level(logging.WARNING):
        alone = learner.patient_of(pic)
        learner.patient_of(vol)
    assert alone[1] == "image" and caplog.text.count("patients.csv` (columns") == 1
    (studies / "patients.csv").write_text("image,patient\npic,p1\nvol.nii.gz,p1\n")
    assert learner.patient_of(pic) == learner.patient_of(vol)  # by the id of one, the file name of the other
    assert learner.patient_of(pic)[1] == "patients.csv" and learner.patient_of(pic) != alone
    (studies / "patients.csv").write_text("image,person\npic,p1\n")
    with pytest.raises(StoreError, match="no column"):
        learner.patient_of(pic)
    stored = store(turns, {"disc": block(PICTURE, 5)}, image="pic", geometry=PICTURE)
    assert learner.learn(stored) is None  # better no case than a patient on both sides
    (studies / "patients.csv").unlink()
    assert learner.build_missing() == 1


def test_an_image_keeps_its_first_patient_when_the_list_comes_later(
    turns: TurnStore, learner: Learner, studies: Path
) -> None:
    def corrected() -> Case:
        kept = learner.learn(store(turns, {"disc": block(PICTURE, 5)}, image="pic", geometry=PICTURE))
        assert kept is not None
        return kept

    first = corrected()
    (studies / "patients.csv").write_text("image,patient\npic,p1\n")
    assert corrected().patient_key == first.patient_key
    (studies / "patients.csv").write_text("image,patient\npic,p2\n")
    assert corrected().patient_key == first.patient_key
    assert len(Ledger(turns.database).patients()) == 1 and len(cases(learner)) == 3


@pytest.mark.parametrize("name", ["pic", "pic.png"])
@pytest.mark.parametrize("apart", [True, False])
def test_a_patient_who_is_in_two_splits_by_a_late_list_is_warned_of(
    turns: TurnStore,
    learner: Learner,
    studies: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    apart: bool,
) -> None:
    picture = learner.learn(store(turns, {"disc": block(PICTURE, 5)}, image="pic", geometry=PICTURE))
    assert picture is not None and picture.split is Split.TRAIN
    (studies / "patients.csv").write_text(f"image,patient\n{name},secret\nvol,secret\n")
    key, kind = learner.patient_of(learner.find("vol"))
    with turns.database.session() as session, session.begin():
        split = Split.VAL if apart else Split.TRAIN
        session.add(PatientRow(key=key, kind=kind, split=split.value, stratum="unknown", assigned="2026"))
    caplog.clear()
    kept = learner.learn(store(turns, {"liver": block(VOLUME, 2)}))
    assert kept is not None and (kept.patient_key, kept.split) == (key, split)
    assert ("now in two splits" in caplog.text) == apart and "secret" not in caplog.text
    caplog.clear()
    assert learner.learn(store(turns, {"liver": block(VOLUME, 3)})) is not None
    assert "two splits" not in caplog.text  # said once, of a new image


def test_an_image_of_a_removed_patient_stays_out_under_any_name(
    turns: TurnStore, learner: Learner, studies: Path
) -> None:
    kept = learner.learn(store(turns, {"disc": block(PICTURE, 5)}, image="pic", geometry=PICTURE))
    assert kept is not None
    remove_patient(turns.database, kept.patient_key, "chief")
    (studies / "patients.csv").write_text("image,patient\npic,p1\n")
    later = store(turns, {"disc": block(PICTURE, 4)}, image="pic", geometry=PICTURE)
    assert learner.learn(later) is None and later.id in withdrawn(turns.database)


def series(folder: Path, patient: str) -> tuple[Path, ...]:
    """Three CT slices and a localiser of another size."""
    folder.mkdir()
    for n in range(4):
        dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
        dataset.PatientID = patient
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{n}"
        dataset.InstanceNumber = n
        dataset.ImagePositionPatient = [-100, -100, 5 * n]
        if n == 3:
            dataset.Rows, dataset.PixelData = 64, dataset.PixelData[: 64 * 128 * 2]
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        dataset.save_as(folder / f"{n}.dcm")
    return tuple(sorted(folder.iterdir()))


def test_a_dicom_series_has_its_patient_and_the_stack_that_was_meant(
    turns: TurnStore, learner: Learner, archive: Archive, studies: Path
) -> None:
    files = series(studies / "series", "PAT 1")
    archive.images["s1"] = ImageFile("s1", studies / "series", stacks(files))
    archive.images["file"] = ImageFile("file", files[0])
    archive.images["folder"] = ImageFile("folder", studies / "series")
    keys = {learner.patient_of(archive.images[name]) for name in ("s1", "file", "folder")}
    assert len(keys) == 1 and next(iter(keys))[1] == "dicom"
    body, scout = (Geometry(stack.shape[:3]) for stack in archive.images["s1"].stacks)
    first = learner.learn(store(turns, {"body": block(body, 3)}, image="s1", geometry=body))
    second = learner.learn(store(turns, {"body": block(scout, 1)}, image="s1", geometry=scout))
    assert first is not None and second is not None and first.patient_key == second.patient_key
    assert (first.modality, first.slices, second.slices) == ("CT", 3, 1)
    assert learner.cases.read(first.correction.id).masks.sum() == 27
    assert learner.cases.read(second.correction.id).masks.sum() == 1
    assert len(Ledger(turns.database).patients()) == 1


def test_of_two_stacks_of_one_size_the_one_is_read_on_which_the_masks_lie(
    turns: TurnStore, learner: Learner, archive: Archive, studies: Path
) -> None:
    files = series(studies / "series", "PAT 1")
    body = stacks(files)[0]
    moved = replace(body, affine=body.affine + np.array([[0, 0, 0, 40.0]] + [[0.0] * 4] * 3))
    archive.images["s1"] = ImageFile("s1", studies / "series", (moved, body))
    grid = Geometry.of_stack(body)
    assert not grid.fits(Geometry.of_stack(moved)) and grid.fits(Geometry(grid.shape))
    masks = learner.database.correction_masks
    stored = store(turns, {"body": block(grid, 3)}, image="s1", geometry=grid)
    packed = masks.read_packed(stored.id, 1)
    assert learning._read(archive.images["s1"], None, packed)[1].n == 2
    elsewhere = replace(packed, geometry={**packed.geometry, "affine": (np.eye(4) * 3).tolist()})
    with pytest.raises(StoreError, match="No stack"):
        learning._read(archive.images["s1"], None, elsewhere)


def test_withdrawn_corrections_and_removed_patients_stay_out(
    turns: TurnStore, learner: Learner, archive: Archive
) -> None:
    archive.away = True
    stored = store(turns, {"liver": block(VOLUME, 2)})
    assert learner.learn(stored) is None
    withdraw(turns.database, stored.id, "chief", "Wrong.")
    archive.away = False
    assert learner.build_missing() == 0
    kept = learner.learn(store(turns, {"liver": block(VOLUME, 2)}))
    assert kept is not None
    remove_patient(turns.database, kept.patient_key, "chief")
    later = store(turns, {"liver": block(VOLUME, 3)})
    assert learner.learn(later) is None and cases(learner) == []
    assert later.id in withdrawn(turns.database) and learner.build_missing() == 0


def test_a_patient_who_is_removed_while_the_image_is_read_stays_out(
    turns: TurnStore, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = learner.learn(store(turns, {"liver": block(VOLUME, 2)}))
    assert kept is not None
    reading = learning.capture

    def removed_meanwhile(*arguments: Any) -> Any:
        remove_patient(turns.database, kept.patient_key, "chief")
        return reading(*arguments)

    monkeypatch.setattr(learning, "capture", removed_meanwhile)
    later = store(turns, {"liver": block(VOLUME, 3)})
    assert learner.learn(later) is None and cases(learner) == []
    assert later.id in withdrawn(turns.database)


def test_a_removal_that_was_interrupted_is_finished_at_the_next_start(
    turns: TurnStore, learner: Learner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    turn = finished(turns, {"liver": block(VOLUME, 3)})
    kept = learner.learn(store(turns, {"liver": block(VOLUME, 2)}, turn))
    assert kept is not None
    with monkeypatch.context() as patch:
        patch.setattr(turns.database.turn_masks, "remove", _raises(OSError("vol")))
        with pytest.raises(OSError, match="vol"):
            remove_patient(turns.database, kept.patient_key, "chief")
        learner.build_missing()  # the disk is still broken: nothing else suffers
        assert "cannot be deleted yet (OSError)" in caplog.text and "vol" not in caplog.text
    assert turns.database.turn_masks.path(turn).exists()
    assert learner.build_missing() == 0 and not turns.database.turn_masks.path(turn).exists()


def test_only_slices_that_were_asked_about_are_kept(turns: TurnStore, learner: Learner) -> None:
    def asked(slices: str, masks: dict[str, np.ndarray]) -> list[int]:
        turn = turns.add(NewTurn("vol", "Where?", options={"slices": slices}))
        turns.finish(
            turn,
            answer="",
            findings=[],
            model_version="v7",
            latencies={},
            masks=[],
            shape=VOLUME.shape,
            geometry=VOLUME.to_json(),
        )
        case = learner.learn(store(turns, masks, turn))
        assert case is not None
        return learner.cases.read(case.correction.id).index.tolist()

    reaches_3 = block(VOLUME, 3)  # slices 0, 1 and 2
    everywhere = asked("all", {"liver": reaches_3})
    assert {0, 1, 2} < set(everywhere)
    assert asked("1", {"liver": reaches_3}) == [0, 1, 2]  # painted beyond what was asked: it counts
    assert set(asked("2-3", {"liver": reaches_3})) <= {0, 1, 2, 3}
    assert asked("5", {"liver": block(VOLUME, 0)}) == [5]  # not present there; of the rest nothing is known
    assert asked("5", {}) == [5]


def test_the_stored_options_name_the_slices() -> None:
    volume = Volume(np.zeros(VOLUME.shape, np.float32), AFFINE, "MR")
    assert asked_slices({}, None, volume) is None
    assert asked_slices({"slices": "0-6"}, None, volume) is None
    assert asked_slices({"slices": "2-4"}, None, volume) == range(2, 5)
    assert asked_slices({"slices": "2-4", "one_slice": True}, None, volume) == range(3, 4)
    assert asked_slices({"slices": "all", "one_slice": True}, None, volume) == range(3, 4)
    files = [str(get_testdata_file("CT_small.dcm"))]
    (stack,) = stacks([Path(files[0])])
    this = {"slices": "this", "instance": stack.slices[0].sop_uid, "frame": None}
    assert asked_slices(this, stack, volume) == range(0, 1)


def test_slices_are_taken_anew_where_none_was_asked_about() -> None:
    voxels = np.random.default_rng(0).normal(size=(8, 9, 40)).astype(np.float32)
    volume, nothing = Volume(voxels, AFFINE, "MR"), [np.zeros((8, 9, 40), bool)]
    first = capture(volume, nothing, 4)
    missed = next(k for k in range(40) if k not in first.index.tolist())
    kept = keep_asked(first, volume, nothing, range(missed, missed + 1), 4)
    assert kept.index.tolist() == [missed] and kept.masks.shape == (1, 1, *kept.rgb.shape[1:3])
    everything = capture(volume, nothing, 40)
    assert np.array_equal(kept.rgb[0], everything.rgb[missed])  # displayed as in the whole volume


def test_a_case_is_on_the_disk_before_the_reply(
    client: TestClient, turns: TurnStore, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), real(fd))[1])
    turn = finished(turns, {"liver": block(VOLUME, 3)})
    before = len(synced)
    body = {"turn_id": turn, "verdict": "accepted", "findings": []}
    assert client.post("/medsegr/corrections", files=form(body)).status_code == 201
    assert len(synced) >= before + 2 and learner.cases.path(cases(learner)[0].correction.id).is_file()
