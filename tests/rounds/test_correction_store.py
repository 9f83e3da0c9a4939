"""The correction store: what was acknowledged is there, whole, whatever happened to the process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError
from state_rows import Place

from medsegr.rounds.corrections import (
    CorrectionStore,
    NewCorrection,
    NewFinding,
    Origin,
    Verdict,
)
from medsegr.rounds.database import Database
from medsegr.rounds.store import NewTurn, StoreError

SHAPE = (3, 5)
GEOMETRY = {"shape": list(SHAPE), "affine": None, "spacing_mm": [0.5, 0.5]}


def finding(n: int | None, label: str, mask: np.ndarray) -> NewFinding:
    return NewFinding(n, label, np.packbits(mask).tobytes(), int(mask.sum()))


def correction(
    image: str = "img", editor: str = "ann", turn: str | None = None, *masks: np.ndarray
) -> NewCorrection:
    findings = tuple(finding(n, f"l{n}", mask) for n, mask in enumerate(masks, start=1))
    return NewCorrection(
        image,
        editor,
        Verdict.EDITED,
        Origin.PANEL,
        findings,
        SHAPE,
        GEOMETRY,
        turn,
        "c1",
        None,
        "Text.",
        "v1",
    )


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "corrections").rglob("*") if path.is_file()]


def test_a_correction_comes_back_as_it_was_stored(place: Place) -> None:
    turns = place.turns()
    turn = turns.add(NewTurn("img", "?"))
    mask, nothing = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    mask[1, 2:] = True
    new = NewCorrection(
        "img", "ann", Verdict.EDITED, Origin.DATASTORE,
        (finding(2, "liver", mask), finding(None, "Spleen, upper", nothing)),
        SHAPE, GEOMETRY, turn, "slicer-1", None, "It is there.", "v1",
    )  # fmt: skip
    stored = CorrectionStore(turns.database).add(new)
    turns.dispose()
    again = CorrectionStore(place.open())
    assert again.get(stored.id) == stored
    assert (stored.turn_id, stored.image_id, stored.editor, stored.client_id) == (
        turn,
        "img",
        "ann",
        "slicer-1",
    )
    assert (stored.verdict, stored.origin, stored.reason) == (Verdict.EDITED, Origin.DATASTORE, None)
    assert (stored.answer, stored.model_version) == ("It is there.", "v1")
    assert stored.findings == [
        {"n": 2, "label": "liver", "present": True, "voxels": 3},
        {"n": None, "label": "Spleen, upper", "present": False, "voxels": 0},
    ]
    first = again.mask(stored.id, 1)
    assert np.array_equal(first.mask, mask) and first.geometry == GEOMETRY
    assert not again.mask(stored.id, 2).mask.any()
    for k in (0, 3):
        with pytest.raises(StoreError, match="2 masks"):
            again.mask(stored.id, k)
    with pytest.raises(StoreError, match="No correction"):
        again.get("0" * 32)


def test_corrections_are_listed_by_image_turn_and_editor_oldest_first(place: Place) -> None:
    turns = place.turns()
    turn = turns.add(NewTurn("a", "?"))
    store = CorrectionStore(turns.database)
    ids = [
        store.add(correction(image, editor, link)).id
        for image, editor, link in (
            ("a", "ann", turn),
            ("b", "ann", None),
            ("a", "bob", turn),
            ("a", "ann", None),
        )
    ]
    assert [c.id for c in store.corrections()] == ids
    assert [c.id for c in store.corrections(image_id="a")] == [ids[0], ids[2], ids[3]]
    assert [c.id for c in store.corrections(turn_id=turn)] == [ids[0], ids[2]]
    assert [c.id for c in store.corrections(image_id="a", editor="ann")] == [ids[0], ids[3]]
    assert [c.id for c in store.corrections(limit=2)] == ids[2:]


def test_a_correction_that_is_not_committed_leaves_nothing(place: Place) -> None:
    store = CorrectionStore(place.open())
    with pytest.raises(RuntimeError, match="elsewhere"), store.prepared(correction()):
        assert len(files(place.folder)) == 1
        raise RuntimeError("elsewhere it failed")
    assert files(place.folder) == [] and store.corrections() == []


def test_masks_that_cannot_be_written_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CorrectionStore(Database(tmp_path))
    monkeypatch.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.add(correction("img", "ann", None, np.ones(SHAPE, bool)))
    assert files(tmp_path) == [] and store.corrections() == []


def test_a_row_that_cannot_be_written_takes_its_masks_along(tmp_path: Path) -> None:
    store = CorrectionStore(Database(tmp_path))
    with sqlite3.connect(tmp_path / "medsegr.sqlite") as raw:
        raw.execute("drop table corrections")
    with pytest.raises(OperationalError):
        store.add(correction("img", "ann", None, np.ones(SHAPE, bool)))
    assert files(tmp_path) == []


def test_a_correction_of_a_turn_that_does_not_exist_is_not_stored(place: Place) -> None:
    store = CorrectionStore(place.open())
    with pytest.raises(Exception, match="(?i)foreign key"):
        store.add(correction("img", "ann", "f" * 32))
    assert files(place.folder) == []


WRITER = """
import sys
from pathlib import Path
import numpy as np
from medsegr.rounds.corrections import *
from medsegr.rounds.database import Database

store = CorrectionStore(Database(Path(sys.argv[1])))
k = 0
while True:
    k += 1
    mask = np.zeros((40, 50, 30), bool)
    mask.flat[:k] = True
    found = (NewFinding(None, f"l{k}", np.packbits(mask).tobytes(), k),) * 3
    done = store.add(NewCorrection("i", "e", Verdict.EDITED, Origin.PANEL, found, mask.shape, {"shape": [40, 50, 30]}))
    print(done.id, k, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_acknowledged_and_leaves_nothing_half(tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for wait_s in (0.31, 0.17, 0.23):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout
            first = writer.stdout.readline().split()
            acknowledged[first[0]] = int(first[1])
        time.sleep(wait_s)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            for line in writer.communicate()[0].splitlines():
                if len(line.split()) == 2:
                    acknowledged[line.split()[0]] = int(line.split()[1])
    store = CorrectionStore(Database(tmp_path))
    found = {c.id: c for c in store.corrections(limit=100_000)}
    assert len(acknowledged) > 10 and acknowledged.keys() <= found.keys()
    assert (
        len(found) <= len(acknowledged) + 6
    )  # at most one more of each writer: stored, and killed before it said so
    for id_, stored in found.items():
        count = int(stored.findings[0]["label"][1:])
        assert acknowledged.get(id_, count) == count
        assert [f["voxels"] for f in stored.findings] == [count] * 3
        for k in (1, 2, 3):
            mask = store.mask(id_, k).mask
            assert mask.shape == (40, 50, 30) and mask.ravel()[:count].all() and mask.sum() == count
