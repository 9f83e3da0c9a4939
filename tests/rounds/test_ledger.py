"""The ledger: everybody is assigned once, in the agreed shares, and stays there."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from state_rows import Place

from medsegr.rounds.audit import Audit
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.ledger import Ledger, next_split
from medsegr.rounds.tables import Split

SHARES = {Split.TRAIN: 0.7, Split.VAL: 0.25, Split.TEST: 0.05}


def test_the_largest_deficit_is_served_and_ties_go_in_order() -> None:
    assert next_split({}, SHARES) is Split.TRAIN
    assert next_split({Split.TRAIN: 1}, SHARES) is Split.VAL  # 0.4, 0.5, 0.1
    assert next_split({Split.TRAIN: 1, Split.VAL: 1}, SHARES) is Split.TRAIN  # 1.1, -0.25, 0.15
    assert next_split({Split.TRAIN: 9, Split.VAL: 3}, SHARES) is Split.TEST  # 0.1, 0.25, 0.65
    third = dict.fromkeys(Split, 1 / 3)
    assert next_split({Split.TRAIN: 1}, third) is Split.VAL
    assert next_split({Split.TRAIN: 1, Split.VAL: 1}, third) is Split.TEST


def test_shares_hold_within_each_stratum(database: Database) -> None:
    ledger = Ledger(database)
    for stratum, count in (("CT", 20), ("MR", 4)):
        for n in range(count):
            ledger.assign(f"{stratum}{n}", "dicom", stratum)
    found = Counter((patient.stratum, patient.split) for patient in ledger.patients())
    assert [found["CT", split] for split in Split] == [14, 5, 1]
    assert [found["MR", split] for split in Split] == [3, 1, 0]
    assert len(ledger.patients(Split.VAL)) == 6


def test_a_patient_never_moves(place: Place) -> None:
    ledger = Ledger(place.open())
    first = [ledger.assign(f"p{n}", "dicom", "CT") for n in range(6)]
    other = Ledger(place.open(), {"train": 0.0, "val": 0.0, "test": 1.0})
    assert [other.assign(f"p{n}", "image", "MR") for n in range(6)] == first
    assert [other.split_of(f"p{n}") for n in range(6)] == first and other.split_of("new") is None
    assert other.assign("new", "image", "MR") is Split.TEST


def test_an_assignment_is_audited_and_goes_with_its_transaction(database: Database) -> None:
    ledger = Ledger(database)

    def fail() -> None:
        with database.writing() as session:
            ledger.assign("p", "dicom", "CT", session=session)
            raise RuntimeError("undone")

    with pytest.raises(RuntimeError, match="undone"):
        fail()
    assert ledger.split_of("p") is None and Audit(database).entries() == []
    ledger.assign("p", "dicom", "CT", editor="ann")
    (entry,) = Audit(database).entries()
    assert (entry.action, entry.subject, entry.editor) == ("assign", "p", "ann")
    assert entry.detail == {"split": "train", "kind": "dicom", "stratum": "CT"}


def test_servers_that_share_a_ledger_agree(place: Place) -> None:
    ledgers = [Ledger(place.open()), Ledger(place.open())]
    found: list[list[Split]] = [[], [], [], []]

    def work(n: int) -> None:
        found[n] = [ledgers[n % 2].assign(f"p{k}", "dicom", "CT") for k in range(8)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == found[2] == found[3]
    assert Counter(found[0]) == {Split.TRAIN: 6, Split.VAL: 2}


@pytest.mark.parametrize(
    "shares", [{"train": 1.0, "val": 0.5}, {"train": 2.0, "val": -1.0}, {"dev": 1.0}, {}]
)
def test_shares_that_are_none_are_refused(database: Database, shares: dict[str, float]) -> None:
    with pytest.raises(StoreError, match="sum to 1"):
        Ledger(database, shares)
