"""Taking back: what must not be used is not, what must go is gone, and the versions trained on it are named."""

from __future__ import annotations

import dataclasses
import stat
from typing import Any

import pytest
from sqlalchemy import select, update
from state_rows import Place, answered, block, case, corrected, slices

from medsegr.rounds.audit import Audit
from medsegr.rounds.cases import CaseStore
from medsegr.rounds.corrections import CorrectionStore
from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.ledger import Ledger
from medsegr.rounds.leftovers import PENDING, Leftovers, delete, finish_removals, write_down
from medsegr.rounds.rounds_log import RoundLog
from medsegr.rounds.store import TurnStore
from medsegr.rounds.tables import RoundStatus, Split, VersionRow
from medsegr.rounds.withdrawals import (
    is_removed,
    remove_patient,
    trained_ids,
    withdraw,
    withdraw_editor,
    withdrawn,
)

TRAIN = {"train": 1.0}


def version(database: Database, number: int, parent: str, train: Any) -> str:
    """A version that a round made, trained on `train`."""
    log = RoundLog(database)
    made = log.start(log.create("hand", "ann").id)
    log.freeze(made.id, {"train": train, "val": ["0" * 32]})
    name = f"v{number}"
    log.finish(made.id, RoundStatus.ADOPTED, {"adopted": True}, name)
    with database.writing() as session:
        session.add(
            VersionRow(
                name=name,
                parent=parent,
                round_id=made.id,
                created=now(),
                directory=name,
                sha256="0" * 64,
                meta={},
            )
        )
    return name


def test_a_correction_that_was_withdrawn_is_used_no_more(database: Database) -> None:
    first, second = case(database, "p1"), case(database, "p1")
    version(database, 1, "base", [first, second])
    version(database, 2, "base", [second])
    version(database, 3, "v1", [second])
    found = withdraw(database, first, "chief", "Wrong side.")
    assert (found.corrections, found.versions) == ((first,), ("v1", "v3"))  # v3 grew out of v1
    store = CaseStore(database)
    assert [c.correction.id for c in store.cases()] == [second]
    assert store.read(first).index.tolist() == [3, 4]  # its data stay
    assert withdrawn(database) == {first: "Wrong side."}
    assert withdraw(database, first, "chief", "Again.").corrections == (first,)
    assert withdrawn(database) == {first: "Wrong side."}
    with pytest.raises(StoreError, match="No correction"):
        withdraw(database, "0" * 32, "chief", "?")


def test_a_version_names_what_it_saw_though_its_round_was_taken_up_again_with_less(
    database: Database,
) -> None:
    first, second = case(database, "p1"), case(database, "p1")
    name = version(database, 1, "base", [second])  # what the round froze when it was taken up again
    with database.writing() as session:
        session.execute(update(VersionRow).values(meta={"data": {"train": [first, second]}}))
    assert withdraw(database, first, "chief", "Wrong side.").versions == (name,)


def test_an_editors_corrections_are_withdrawn_together(database: Database) -> None:
    ids = [case(database, f"p{n}", editor=editor) for n, editor in enumerate(("ann", "bad", "ann", "bad"))]
    name = version(database, 1, "base", {ids[1]: "hash"})
    found = withdraw_editor(database, "bad", "chief", "Random masks.")
    assert (found.corrections, found.versions) == ((ids[1], ids[3]), (name,))
    assert [c.correction.id for c in CaseStore(database).cases()] == [ids[0], ids[2]]
    entry = Audit(database).entries()[-1]
    assert (entry.editor, entry.action, entry.subject) == ("chief", "withdraw_editor", "bad")
    later = case(database, "p9", editor="bad")
    assert later in [c.correction.id for c in CaseStore(database).cases()]
    assert withdraw_editor(database, "nobody", "chief", "?").corrections == ()


def test_the_ids_of_a_round_may_be_listed_in_three_ways() -> None:
    for train in (["a", "b"], [{"id": "a"}, {"id": "b", "sha256": "x"}], {"a": "x", "b": "y"}):
        assert trained_ids({"train": train}) == {"a", "b"}
    assert trained_ids({}) == trained_ids({"train": None}) == set()


def test_a_removed_patient_leaves_nothing_but_numbers(place: Place) -> None:
    turns = place.turns()
    database = turns.database
    asked, other = answered(turns, "scan", liver=block(1)), answered(turns, "other", liver=block(1))
    cases, corrections = CaseStore(database, Ledger(database, TRAIN)), CorrectionStore(database)
    stored = corrected(database, "scan", turn=asked, liver=block(2))
    cases.add(stored.id, "p1", "dicom", "CT", "CT", slices())
    without_case = corrected(database, "scan", turn=asked, liver=block(3))
    kept = corrected(database, "other", turn=other, liver=block(2))
    cases.add(kept.id, "p2", "dicom", "CT", "CT", slices())
    name = version(database, 1, "base", [stored.id, kept.id])
    (database.paths.rounds / "1").mkdir()
    (database.paths.rounds / "1" / "page.html").write_text("a picture")
    labels = database.folder / "labels" / "labels" / "final"
    labels.mkdir(parents=True)
    for file in ("scan.json", "scan.1a2b.nrrd", "other.json", "scan2.json"):
        (labels / file).write_text("{}")
    (database.folder / "looks").mkdir()
    lines = "\n".join(f'{{"image": "{image}"}}' for image in ("scan", "other")) + '\n{"image": "sc'
    for file in ("looks/1.jsonl", "skipped.jsonl"):
        (database.folder / file).write_text(lines)

    found = remove_patient(database, "p1", "chief")
    assert set(found.corrections) == {stored.id, without_case.id}
    assert (found.versions, found.rounds) == ((name,), (1,))
    assert not (database.paths.rounds / "1").exists()
    assert {path.name for path in labels.iterdir()} == {"other.json", "scan2.json"}
    for file in ("looks/1.jsonl", "skipped.jsonl"):
        assert (database.folder / file).read_text() == '{"image": "other"}\n{"image": "sc'
    emptied = turns.get(asked)
    assert (emptied.question, emptied.answer, emptied.history, emptied.findings) == ("", "", [], [])
    assert emptied.image_id == "removed" and emptied.options == {}
    for id_ in found.corrections:
        gone = corrections.get(id_)
        assert (gone.reason, gone.answer, gone.image_id) == (None, None, "removed")
        with pytest.raises(StoreError, match="lost or damaged"):
            corrections.mask(id_, 1)
    with pytest.raises(StoreError, match="lost or damaged"):
        cases.read(stored.id)
    with pytest.raises(StoreError):
        turns.mask(asked, 0)
    assert [c.correction.id for c in cases.cases()] == [kept.id]
    assert turns.get(other).question == "Where is it?" and turns.mask(other, 1).mask.any()
    assert corrections.mask(kept.id, 1).mask.any() and cases.read(kept.id).index.tolist() == [3, 4]
    assert cases.ledger.split_of("p1") is Split.TRAIN  # the line stays
    with database.session() as session:
        assert is_removed(session, "p1") and not is_removed(session, "p2")
    assert Audit(database).verify() is None
    assert "scan" not in repr([dataclasses.asdict(e) for e in Audit(database).entries()])


def _everything(place: Place) -> tuple[TurnStore, str, set[str]]:
    """A patient p1 with a case, a correction without one, labels and skips: the turns, the turn, ids of the corrections."""
    turns = place.turns()
    database = turns.database
    asked = answered(turns, "scan", liver=block(1))
    ids = {case(database, "p1", "scan"), corrected(database, "scan", turn=asked, liver=block(3)).id}
    (database.folder / "labels" / "labels").mkdir(parents=True)
    (database.folder / "labels" / "labels" / "scan.json").write_text("{}")
    (database.folder / "skipped.jsonl").write_text('{"image": "scan"}\n')
    return turns, asked, ids


def _left(turns: TurnStore, asked: str, ids: set[str]) -> list[str]:
    """What is still there of it."""
    database = turns.database
    paths = [database.turn_masks.path(asked), *(CaseStore(database).path(id_) for id_ in ids)]
    paths += [database.correction_masks.path(id_) for id_ in ids]
    paths += [database.folder / "labels" / "labels" / "scan.json", *(database.folder / PENDING).glob("*")]
    skips = (database.folder / "skipped.jsonl").read_text()
    return [path.name for path in paths if path.exists()] + ([skips] if "scan" in skips else [])


@pytest.mark.parametrize("by", ["another removal", "the next start", "the same removal"])
@pytest.mark.parametrize("where", ["discard", "remove", "forget_images", "finish_removals"])
def test_a_removal_that_was_interrupted_is_finished(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str, by: str
) -> None:
    turns, asked, ids = _everything(place)
    database = turns.database
    case(database, "p2", "other")

    def fail(*_: Any) -> None:
        raise OSError("a full disk")

    target = {
        "discard": "medsegr.rounds.cases.CaseStore.discard",
        "remove": "medsegr.rounds.mask_files.MaskFiles.remove",
        "forget_images": "medsegr.rounds.leftovers.forget_images",
        "finish_removals": "medsegr.rounds.withdrawals.finish_removals",  # killed right after the transaction
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(target, fail)
        with pytest.raises(OSError, match="full disk"):
            remove_patient(database, "p1", "chief")
    assert turns.get(asked).image_id == "removed"
    (pending,) = (database.folder / PENDING).iterdir()
    assert stat.S_IMODE(pending.stat().st_mode) == 0o600 and _left(turns, asked, ids)
    if by == "the next start":
        finish_removals(database)
    else:
        remove_patient(database, "p2" if by == "another removal" else "p1", "chief")
    assert _left(turns, asked, ids) == [] and Audit(database).verify() is None


def test_a_removal_that_cannot_be_finished_keeps_its_list_and_holds_up_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    turns, asked, ids = _everything(place)
    other = case(turns.database, "p2", "other")
    discard = CaseStore.discard

    def stuck(store: CaseStore, id_: str) -> None:
        if id_ in ids:
            raise OSError("a full disk")
        discard(store, id_)

    monkeypatch.setattr(CaseStore, "discard", stuck)
    with pytest.raises(OSError, match="full disk"):
        remove_patient(turns.database, "p1", "chief")
    assert remove_patient(turns.database, "p2", "chief").corrections == (other,)
    assert "cannot be deleted yet (OSError)" in caplog.text and "full disk" not in caplog.text
    assert not CaseStore(turns.database).path(other).exists()
    assert len(list((turns.database.folder / PENDING).iterdir())) == 1 and _left(turns, asked, ids)


def test_a_delayed_list_spares_a_round_that_runs_again(place: Place) -> None:
    database = place.open()
    log = RoundLog(database)
    ended = log.create("hand", "ann", {})
    log.cancel(ended.id, "ann")
    going = log.create("hand", "ann", {})
    folders = [database.paths.rounds / str(one.id) for one in (ended, going)]
    for folder in folders:
        folder.mkdir(parents=True)
    delete(database, Leftovers((), (), (ended.id, going.id), ()))
    assert [folder.exists() for folder in folders] == [False, True]


def test_the_list_of_a_removal_that_never_counted_deletes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, asked, ids = _everything(place)

    def killed(*arguments: Any) -> None:
        write_down(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("medsegr.rounds.withdrawals.write_down", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_patient(turns.database, "p1", "chief")
    assert list((turns.database.folder / PENDING).iterdir())
    withdraw(turns.database, case(turns.database, "p2"), "chief", "Its row takes the number of the other.")
    before = [name for name in _left(turns, asked, ids) if not name.endswith(".json") or name == "scan.json"]
    finish_removals(turns.database)
    assert _left(turns, asked, ids) == before and turns.mask(asked, 1).mask.any()
    assert turns.get(asked).image_id == "scan"


def test_images_that_were_only_asked_about_go_when_they_are_named(place: Place) -> None:
    turns = place.turns()
    case(turns.database, "p1", "scan")
    asked, foreign = answered(turns, "older scan", liver=block(1)), answered(turns, "x", liver=block(1))
    remove_patient(turns.database, "p1", "chief", ["older scan", "never seen"])
    assert turns.get(asked).question == "" and turns.get(foreign).question == "Where is it?"
    with pytest.raises(StoreError, match="no patient"):
        remove_patient(turns.database, "p2", "chief")


def test_a_round_that_uses_a_case_has_to_end_first(database: Database) -> None:
    id_ = case(database, "p1")
    log = RoundLog(database)
    running = log.start(log.create("hand", "ann").id)
    log.freeze(running.id, {"train": [], "val": [{"id": id_, "sha256": "x"}]})
    with pytest.raises(StoreError, match="Round 1 uses a case"):
        remove_patient(database, "p1", "chief")
    assert CaseStore(database).read(id_) and withdrawn(database) == {}
    log.cancel(running.id, "chief")
    assert remove_patient(database, "p1", "chief").rounds == (1,)


def test_a_removal_that_fails_leaves_every_file(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = case(database, "p1")

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr("medsegr.rounds.withdrawals.append", fail)
        with pytest.raises(RuntimeError, match="broken"):
            remove_patient(database, "p1", "chief")
    assert CaseStore(database).read(id_) and [c.correction.id for c in CaseStore(database).cases()] == [id_]
    with database.session() as session:
        assert list(session.scalars(select(VersionRow.name))) == []
