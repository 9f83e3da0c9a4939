"""What a round uses: the last word on every turn, image and structure, spelt in one way, and no more than it can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from state_rows import Place, answered, block, corrected

from medsegr.qa.facts import load_knowledge
from medsegr.rounds import collect
from medsegr.rounds.cases import CaseStore, TrainingSlices
from medsegr.rounds.collect import corrected_labels, pictures, readable, said_of_turns, usable
from medsegr.rounds.corrections import Correction, Origin, Verdict
from medsegr.rounds.database import Database
from medsegr.rounds.store import NewTurn
from medsegr.rounds.withdrawals import withdraw

SHAPE = (4, 6)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A new state on SQLite: nothing here depends on the kind of database."""
    return Place(tmp_path / "state", None)


def _keep(database: Database, stored: Correction, slices: tuple[int, ...] = (0,)) -> None:
    k = len(stored.findings)
    masks = np.zeros((k, len(slices), *SHAPE), np.bool_)
    for n, finding in enumerate(stored.findings):
        if finding["present"]:
            masks[n, :, : 1 + n] = True
    rgb = np.full((len(slices), *SHAPE, 3), 7, np.uint8)
    kept = TrainingSlices(rgb, masks, np.asarray(slices, np.int64))
    CaseStore(database).add(stored.id, stored.image_id, "image", "CT", "CT", kept)


def _used(database: Database, names: dict[str, str] | None = None) -> list[collect.Usable]:
    return usable(CaseStore(database).cases(), names or {}, said_of_turns(database))


def test_the_last_word_on_a_structure_of_an_image_counts(place: Place) -> None:
    database = place.open()
    for masks in ({"liver": block(1), "spleen": block(2)}, {"liver": block(3)}):
        _keep(database, corrected(database, "img", **masks))
    used = _used(database)
    assert [u.labels for u in used] == [{"spleen"}, {"liver"}]
    assert used[0].case.correction.created < used[1].case.correction.created


def test_a_second_correction_of_a_turn_replaces_the_first(place: Place) -> None:
    turn = answered(place.turns(), liver=block(2))
    database = place.open()
    _keep(database, corrected(database, turn=turn, liver=block(1)))
    _keep(database, corrected(database, turn=turn, spleen=block(1)))  # it was given another name
    assert [u.labels for u in _used(database)] == [{"spleen"}]


def test_an_answer_that_was_rejected_later_teaches_nothing(place: Place) -> None:
    turn = answered(place.turns(), liver=block(2))
    database = place.open()
    _keep(database, corrected(database, turn=turn, verdict=Verdict.ACCEPTED, liver=block(2)))
    assert len(_used(database)) == 1
    corrected(database, turn=turn, verdict=Verdict.REJECTED)
    assert _used(database) == []


def test_a_rejection_that_was_withdrawn_silences_nothing(place: Place) -> None:
    turn = answered(place.turns(), liver=block(2))
    database = place.open()
    _keep(database, corrected(database, turn=turn, verdict=Verdict.ACCEPTED, liver=block(2)))
    earlier, last = (corrected(database, turn=turn, verdict=Verdict.REJECTED) for _ in range(2))
    withdraw(database, last.id, "chief", "The wrong patient.")
    assert _used(database) == [] and said_of_turns(database).rejected == {turn: earlier.created}
    withdraw(database, earlier.id, "chief", "The wrong patient.")
    assert len(_used(database)) == 1


def test_labels_are_spelt_as_the_list_has_them(place: Place) -> None:
    database = place.open()
    _keep(database, corrected(database, "a", **{"Liver": block(1)}))
    _keep(database, corrected(database, "b", **{" liver ": block(1)}))
    used = _used(database, {"liver": "liver"})
    assert corrected_labels(used) == ("liver",)


def test_what_an_edit_left_as_it_was_is_not_what_was_corrected(place: Place) -> None:
    database = place.open()
    stored = corrected(database, "a", liver=block(1), spleen=block(2))
    _keep(database, stored)
    used = _used(database)
    assert corrected_labels(used, {(stored.id, "spleen")}) == ("liver",)
    both = {(stored.id, "spleen"), (stored.id, "liver")}
    assert corrected_labels(used, both) == ("liver", "spleen")


def test_labels_that_a_stock_client_lists_and_does_not_draw_are_no_denials(place: Place) -> None:
    database = place.open()
    stored = corrected(database, origin=Origin.DATASTORE, liver=block(1), spleen=block(0))
    for finding in stored.findings:
        finding["n"] = None
    _keep(database, stored)
    from sqlalchemy import update

    from medsegr.rounds.tables import CorrectionRow

    with database.session() as session, session.begin():
        session.execute(update(CorrectionRow).values(findings=stored.findings))
    assert [u.labels for u in _used(database)] == [{"liver"}]
    own = corrected(database, "other", liver=block(1), spleen=block(0))
    _keep(database, own)
    assert _used(database)[-1].labels == {"liver", "spleen"}  # in the panel a clinician said so


def test_corrections_of_single_slices_stand_beside_each_other(place: Place) -> None:
    turns = place.turns()
    database = place.open()
    for index in (3, 9, 3):
        turn = turns.add(NewTurn("img", "Where is it?", (), "ann", None, {"slices": str(index)}))
        _keep(database, corrected(database, turn=turn, liver=block(1)), (index,))
    drawn = pictures(CaseStore(database), _used(database), load_knowledge().concepts)
    newest = [c.correction.id for c in CaseStore(database).cases()][1:]
    assert [one.name for one in drawn] == [f"{newest[0]}_9", f"{newest[1]}_3"]


def test_of_a_structure_only_the_newest_pictures_are_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "PER_LABEL", 3)
    database = place.open()
    for n in range(5):
        _keep(database, corrected(database, f"img{n}", liver=block(1)))
    _keep(database, corrected(database, "img9", spleen=block(1)))
    drawn = pictures(CaseStore(database), _used(database), load_knowledge().concepts)
    assert sorted(name for one in drawn for name in one.masks) == ["liver"] * 3 + ["spleen"]


def test_a_damaged_case_is_left_out(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    database = place.open()
    first, second = (corrected(database, name, liver=block(1)) for name in ("a", "b"))
    for stored in (first, second):
        _keep(database, stored)
    store = CaseStore(database)
    store.path(first.id).write_bytes(b"nonsense")
    assert [c.correction.id for c in readable(store, store.cases())] == [second.id]
    assert first.id in caplog.text
