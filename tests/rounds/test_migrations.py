"""Older state folders come along, newer ones are left alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from medsegr.rounds import migrations
from medsegr.rounds.corrections import CorrectionStore, NewCorrection, Origin, Verdict
from medsegr.rounds.store import NewTurn, StoreError, TurnStatus, TurnStore

TURN = "a" * 32
SCHEMA_1 = f"""
CREATE TABLE schema_version (version INTEGER NOT NULL, PRIMARY KEY (version));
INSERT INTO schema_version VALUES (1);
CREATE TABLE turns (
    id VARCHAR(32) NOT NULL, image_id TEXT NOT NULL, editor TEXT NOT NULL, client_id TEXT,
    created VARCHAR(32) NOT NULL, owner TEXT NOT NULL, question TEXT NOT NULL, history JSON NOT NULL,
    options JSON NOT NULL, status VARCHAR(16) NOT NULL, answer TEXT, findings JSON NOT NULL,
    model_version TEXT, error TEXT, latencies JSON NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_turns_image_id ON turns (image_id);
CREATE INDEX ix_turns_created ON turns (created);
CREATE INDEX ix_turns_status ON turns (status);
INSERT INTO turns VALUES ('{TURN}', 'img', 'ann', 'slicer', '2026-01-02T03:04:05.000006+00:00', '1-x',
    'Where is it?', '[]', '{{"slices": "all"}}', 'done', 'Here.', '[{{"n": 1, "label": "liver"}}]', 'v0',
    NULL, '{{"total_ms": 3.0}}');
"""


def schema_1(folder: Path) -> Path:
    """A state folder as version 1 wrote it, with one turn and its mask."""
    (folder / "masks" / TURN[:2]).mkdir(parents=True)
    file = folder / "medsegr.sqlite"
    with sqlite3.connect(file) as raw:
        raw.executescript(SCHEMA_1)
    mask = np.zeros((2, 3), bool)
    mask[1, 2] = True
    np.savez_compressed(
        folder / "masks" / TURN[:2] / f"{TURN}.npz",
        packed_1=np.packbits(mask),
        shape=np.asarray([2, 3]),
        geometry=np.frombuffer(b'{"shape": [2, 3], "affine": null, "spacing_mm": null}', np.uint8),
    )
    return file


def layout(file: Path) -> dict[str, object]:
    """Columns (name, type, not null, key), foreign keys and indexes of every table."""
    with sqlite3.connect(file) as raw:
        tables = [row[0] for row in raw.execute("select name from sqlite_master where type = 'table'")]
        return {
            table: (
                [(r[1], r[2], r[3], r[5]) for r in raw.execute(f"pragma table_info({table})")],
                [tuple(r[2:5]) for r in raw.execute(f"pragma foreign_key_list({table})")],
                sorted(
                    r[1] for r in raw.execute(f"pragma index_list({table})") if not r[1].startswith("sqlite_")
                ),
            )
            for table in sorted(tables)
        }


def test_a_version_1_folder_keeps_its_turns_and_takes_corrections(tmp_path: Path) -> None:
    file = schema_1(tmp_path)
    store = TurnStore(tmp_path)
    turn = store.get(TURN)
    assert (turn.status, turn.question, turn.answer) == (TurnStatus.DONE, "Where is it?", "Here.")
    assert turn.options == {"slices": "all"} and turn.findings == [{"n": 1, "label": "liver"}]
    assert store.mask(TURN, 1).mask.tolist() == [[False] * 3, [False, False, True]]
    assert store.mask(TURN, 0).mask.tolist() == [[False] * 3] * 2
    new = NewCorrection("img", "ann", Verdict.REJECTED, Origin.PANEL, (), (2, 3), {}, TURN, reason="No.")
    kept = CorrectionStore(store.database).add(new)
    store.dispose()
    again = TurnStore(tmp_path)
    assert CorrectionStore(again.database).get(kept.id) == kept
    assert again.add(NewTurn("img", "?"))
    with sqlite3.connect(file) as raw:
        assert raw.execute("select version from schema_version").fetchall() == [(migrations.SCHEMA,)]


def test_a_migrated_folder_has_the_layout_of_a_new_one(tmp_path: Path) -> None:
    old = schema_1(tmp_path / "old")
    TurnStore(tmp_path / "old").dispose()
    TurnStore(tmp_path / "new").dispose()
    assert layout(old) == layout(tmp_path / "new" / "medsegr.sqlite")


def test_a_migration_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = schema_1(tmp_path)
    before = layout(file)
    monkeypatch.setitem(migrations.STEPS, 1, (migrations.STEPS[1][0], "CREATE NONSENSE"))
    with pytest.raises(OperationalError):
        TurnStore(tmp_path)
    assert layout(file) == before
    with sqlite3.connect(file) as raw:
        assert raw.execute("select version from schema_version").fetchall() == [(1,)]
    monkeypatch.undo()
    assert TurnStore(tmp_path).get(TURN).answer == "Here."


def test_a_newer_folder_is_refused_and_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "medsegr.sqlite"
    with sqlite3.connect(file) as raw:
        raw.executescript(
            "create table schema_version (version integer); insert into schema_version values (99)"
        )
    with pytest.raises(StoreError, match="schema 99"):
        TurnStore(tmp_path)
    assert list(layout(file)) == ["schema_version"]
