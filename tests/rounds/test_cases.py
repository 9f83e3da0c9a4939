"""Cases: slices come back bit by bit, or the case says that they are not its own."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy.exc import SQLAlchemyError
from state_rows import Place, answered, block, case, corrected, slices

from medsegr.rounds.cases import CaseStore, TrainingSlices
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.ledger import Ledger
from medsegr.rounds.mask_files import write_arrays
from medsegr.rounds.tables import Split, WithdrawalRow


def test_a_case_comes_back_as_it_was_kept(place: Place) -> None:
    turns = place.turns()
    turn = answered(turns, liver=block(1))
    stored = corrected(turns.database, turn=turn, liver=block(2), cyst=block(0))
    kept = slices(k=2, n=3)
    made = CaseStore(turns.database).add(stored.id, "p" * 64, "dicom", "CT", "CT", kept)
    again = CaseStore(place.open())
    assert again.cases() == [made]
    assert (made.correction, made.question, made.answer) == (stored, "Where is it?", "Found.")
    assert (made.split, made.modality, made.slices, made.patient_key) == (Split.TRAIN, "CT", 3, "p" * 64)
    read = again.read(stored.id)
    assert np.array_equal(read.rgb, kept.rgb) and read.rgb.dtype == np.uint8
    assert np.array_equal(read.masks, kept.masks) and read.masks.dtype == np.bool_
    assert read.index.tolist() == [3, 4, 5] and made.sha256 == kept.sha256() == read.sha256()


def test_a_case_without_question_and_without_findings(database: Database) -> None:
    stored = corrected(database)
    nothing = TrainingSlices(slices().rgb, np.zeros((0, 2, 4, 6), bool), slices().index)
    made = CaseStore(database).add(stored.id, "p", "image", "unknown", None, nothing)
    assert (made.question, made.answer, made.modality) == ("", None, None)
    assert CaseStore(database).read(stored.id).masks.shape == (0, 2, 4, 6)


def test_cases_are_listed_by_split_without_those_withdrawn(database: Database) -> None:
    store = CaseStore(database, Ledger(database, {"train": 0.5, "val": 0.5}))
    ids = [case_of(store, f"p{n}") for n in range(4)]
    assert [c.correction.id for c in store.cases()] == ids
    assert [c.correction.id for c in store.cases(Split.TRAIN)] == [ids[0], ids[2]]
    assert [c.correction.id for c in store.cases(Split.VAL)] == [ids[1], ids[3]]
    with database.writing() as session:
        session.add(WithdrawalRow(correction_id=ids[2], why="Wrong.", editor="ann", created="now"))
    assert [c.correction.id for c in store.cases(Split.TRAIN)] == [ids[0]]
    assert [c.correction.id for c in store.cases(Split.TRAIN, include_withdrawn=True)] == [ids[0], ids[2]]


def case_of(store: CaseStore, patient: str) -> str:
    stored = corrected(store.database, liver=block(2))
    store.add(stored.id, patient, "dicom", "CT", "CT", slices())
    return stored.id


def test_a_case_is_made_once(database: Database) -> None:
    id_ = case(database, "p1")
    first = CaseStore(database).cases()[0]
    again = CaseStore(database).add(id_, "p2", "image", "MR", "MR", slices(seed=9))
    assert again == first and Ledger(database).split_of("p2") is None
    assert CaseStore(database).read(id_).sha256() == first.sha256


def test_masks_must_be_those_of_the_findings(database: Database) -> None:
    stored = corrected(database, liver=block(2))
    store = CaseStore(database)
    with pytest.raises(StoreError, match="1 findings, but masks of 2"):
        store.add(stored.id, "p", "dicom", "CT", "CT", slices(k=2))
    with pytest.raises(StoreError, match="nothing to make a case of"):
        store.add("0" * 32, "p", "dicom", "CT", "CT", slices())
    assert store.cases() == [] and Ledger(database).split_of("p") is None
    assert not store.path(stored.id).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"rgb": np.zeros((2, 4, 6), np.uint8)},
        {"rgb": np.zeros((2, 4, 6, 3), np.float32)},
        {"rgb": np.zeros((0, 4, 6, 3), np.uint8)},
        {"masks": np.zeros((1, 3, 4, 6), bool)},
        {"masks": np.zeros((1, 2, 4, 6), np.uint8)},
        {"masks": np.zeros((2, 4, 6), bool)},
        {"index": np.zeros(3, np.int64)},
    ],
)
def test_slices_of_another_form_are_refused(change: dict[str, np.ndarray]) -> None:
    with pytest.raises(StoreError):
        replace(slices(), **change)


@pytest.mark.parametrize("damage", ["lost", "cut", "changed"])
def test_slices_that_are_lost_or_changed_are_told(database: Database, damage: str) -> None:
    id_ = case(database, "p")
    store = CaseStore(database)
    path = store.path(id_)
    if damage == "lost":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        with np.load(path) as stored:
            arrays = dict(stored)
        arrays["packed"] = ~arrays["packed"]
        write_arrays(path, arrays)
    with pytest.raises(StoreError, match="restore the state folder"):
        store.read(id_)


def test_what_cannot_be_written_leaves_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = corrected(database, liver=block(2))
    store = CaseStore(database)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            store.add(stored.id, "p", "dicom", "CT", "CT", slices())
    assert store.cases() == [] and Ledger(database).split_of("p") is None
    assert [p for p in database.paths.cases.rglob("*") if p.is_file()] == []


def test_a_row_that_cannot_be_written_takes_its_slices_along(database: Database) -> None:
    stored = corrected(database, liver=block(2))
    store = CaseStore(database)
    with database.session() as session, session.begin():
        session.connection().exec_driver_sql("DROP TABLE cases")
        session.connection().exec_driver_sql("CREATE TABLE cases (correction_id VARCHAR(32) PRIMARY KEY)")
    with pytest.raises(SQLAlchemyError):
        store.add(stored.id, "p", "dicom", "CT", "CT", slices())
    assert not store.path(stored.id).exists()
