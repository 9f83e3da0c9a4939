"""The turn store: what goes in comes out, also after the process is gone."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path

import numpy as np
import psutil
import pytest
from state_rows import Place

from medsegr.rounds.store import NewTurn, StoreError, TurnStatus, TurnStore

GEOMETRY = {"shape": [3, 5], "affine": None, "spacing_mm": [0.5, 0.5]}


def finish(store: TurnStore, turn_id: str, masks: list[np.ndarray]) -> None:
    store.finish(
        turn_id,
        answer="It is here.",
        findings=[{"n": n, "label": f"l{n}"} for n in range(1, len(masks) + 1)],
        model_version="v1",
        latencies={"total_ms": 2.5},
        masks=[np.packbits(m).tobytes() for m in masks],
        shape=(3, 5),
        geometry=GEOMETRY,
    )


def test_a_turn_comes_back_as_it_was_stored(place: Place) -> None:
    store = place.turns()
    history = ({"question": "Is it CT?", "answer": "Yes."},)
    turn_id = store.add(NewTurn("img", "Where is it?", history, "ann", "slicer-1", {"slices": "3"}))
    assert store.get(turn_id).status is TurnStatus.QUEUED
    store.start(turn_id)
    assert store.get(turn_id).status is TurnStatus.RUNNING
    mask = np.zeros((3, 5), bool)
    mask[1, 2:] = True
    finish(store, turn_id, [mask, ~mask])
    turn = place.turns().get(turn_id)
    assert (turn.status, turn.answer, turn.model_version) == (TurnStatus.DONE, "It is here.", "v1")
    assert (turn.question, turn.history, turn.editor, turn.client_id) == (
        "Where is it?",
        list(history),
        "ann",
        "slicer-1",
    )
    assert turn.options == {"slices": "3"} and turn.latencies == {"total_ms": 2.5}
    stored = store.mask(turn_id, 2)
    assert (
        stored.mask.dtype == np.bool_ and np.array_equal(stored.mask, ~mask) and stored.geometry == GEOMETRY
    )


def test_turns_are_listed_by_image_oldest_first(place: Place) -> None:
    store = place.turns()
    ids = [store.add(NewTurn(image, "?")) for image in ("a", "b", "a", "a")]
    assert [turn.id for turn in store.turns("a")] == [ids[0], ids[2], ids[3]]
    assert [turn.id for turn in store.turns(limit=2)] == ids[2:]


def test_unknown_turns_and_masks_are_said_to_be_unknown(place: Place) -> None:
    store = place.turns()
    with pytest.raises(StoreError, match="No turn"):
        store.get("0" * 32)
    turn_id = store.add(NewTurn("a", "?"))
    finish(store, turn_id, [])
    with pytest.raises(StoreError, match="0 masks"):
        store.mask(turn_id, 1)


def test_an_answer_without_findings_keeps_the_grid(place: Place) -> None:
    store = place.turns()
    turn_id = store.add(NewTurn("a", "?"))
    with pytest.raises(StoreError, match="queued"):
        store.mask(turn_id, 0)
    finish(store, turn_id, [])
    empty = store.mask(turn_id, 0)
    assert empty.mask.shape == (3, 5) and not empty.mask.any() and empty.geometry == GEOMETRY
    packed = store.packed_masks(store.get(turn_id))
    assert (packed.packed, packed.shape, packed.geometry) == ((), (3, 5), GEOMETRY)


def test_the_last_answer_of_a_client_is_found(place: Place) -> None:
    store = place.turns()
    asked = [
        ("a", "ann", "c1"),
        ("a", "ann", "c1"),
        ("a", "ann", "c2"),
        ("b", "ann", "c1"),
        ("a", "bob", None),
    ]
    ids = [store.add(NewTurn(image, "?", (), editor, client)) for image, editor, client in asked]
    for turn_id in (ids[0], ids[2], ids[4]):
        finish(store, turn_id, [])

    def last(image: str, client: str | None, editor: str) -> str | None:
        found = store.last_answered(image, client, editor)
        return found.id if found else None

    assert last("a", "c1", "ann") == ids[0]  # ids[1] has no answer yet
    finish(store, ids[1], [])
    assert last("a", "c1", "ann") == ids[1] and last("a", "c2", "ann") == ids[2]
    assert last("b", "c1", "ann") is None and last("a", "c1", "bob") is None
    assert last("a", None, "bob") == ids[4]


def test_a_crash_while_masks_are_written_leaves_no_file_and_an_open_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TurnStore(tmp_path)
    turn_id = store.add(NewTurn("a", "?"))
    monkeypatch.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        finish(store, turn_id, [np.ones((3, 5), bool)])
    assert store.get(turn_id).status is TurnStatus.QUEUED
    assert [p for p in (tmp_path / "masks").rglob("*") if p.is_file()] == []


def test_questions_left_open_by_a_dead_server_are_failed_at_the_next_start(tmp_path: Path) -> None:
    store = TurnStore(tmp_path)
    lost, foreign, reused, old = (store.add(NewTurn("a", "?")) for _ in range(4))
    store.dispose()
    with sqlite3.connect(tmp_path / "medsegr.sqlite") as raw:
        parent, host = psutil.Process(os.getppid()), socket.gethostname()
        for turn, owner in (
            (foreign, f"{parent.pid} {parent.create_time():.2f} {host} x"),
            (reused, f"{parent.pid} {parent.create_time() - 900:.2f} {host} x"),
            (old, f"{parent.pid}-x"),
        ):
            raw.execute("update turns set owner = ? where id = ?", (owner, turn))
    again = TurnStore(tmp_path)
    assert again.get(lost).status is TurnStatus.FAILED and "stopped" in (again.get(lost).error or "")
    assert again.get(foreign).status is TurnStatus.QUEUED  # that process is alive
    assert again.get(reused).status is TurnStatus.FAILED  # its number went to another one
    assert again.get(old).status is TurnStatus.FAILED  # of an earlier version


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    TurnStore(tmp_path).dispose()
    with sqlite3.connect(tmp_path / "medsegr.sqlite") as raw:
        raw.execute("update schema_version set version = 99")
    with pytest.raises(StoreError, match="schema 99"):
        TurnStore(tmp_path)


def test_the_state_folder_is_private_and_errors_do_not_quote_questions(tmp_path: Path) -> None:
    store = TurnStore(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    store.dispose()
    with sqlite3.connect(tmp_path / "state" / "medsegr.sqlite") as raw:
        raw.execute("drop table turns")
    with pytest.raises(Exception, match="turns") as caught:
        store.add(NewTurn("a", "a secret question"))
    assert "secret" not in str(caught.value)


def test_a_state_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be created"):
        TurnStore(tmp_path / "file" / "state")


def test_a_byte_that_changed_anywhere_in_masks_is_one_sentence_or_none(tmp_path: Path) -> None:
    store = TurnStore(tmp_path)
    turn_id = store.add(NewTurn("a", "?"))
    finish(store, turn_id, [np.random.default_rng(0).random((60, 50)) < 0.5])
    path = next((tmp_path / "masks").rglob("*.npz"))
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            store.mask(turn_id, 1)  # a name or a date within the archive may change without harm
        except StoreError:
            refused += 1
    assert refused > len(whole) / 7 / 2


@pytest.mark.parametrize("content", [None, b"", b"not a zip"])
def test_masks_that_are_lost_or_damaged_are_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    store = TurnStore(tmp_path)
    turn_id = store.add(NewTurn("a", "?"))
    finish(store, turn_id, [np.ones((3, 5), bool)])
    path = next((tmp_path / "masks").rglob("*.npz"))
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(StoreError, match="lost or damaged"):
        store.mask(turn_id, 1)
