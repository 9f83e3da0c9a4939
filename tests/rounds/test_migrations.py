"""Older state folders come along, newer ones are left alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError
from state_rows import Place

from medsegr.rounds import migrations
from medsegr.rounds.audit import Audit
from medsegr.rounds.cases import CaseStore, TrainingSlices
from medsegr.rounds.corrections import CorrectionStore, NewCorrection, Origin, Verdict
from medsegr.rounds.rounds_log import RoundLog, RoundStatus
from medsegr.rounds.scores import Scores
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


CORRECTION = "b" * 32
SCHEMA_2 = (
    *migrations.STEPS[1],
    f"INSERT INTO corrections VALUES ('{CORRECTION}', '{TURN}', 'img', 'ann', 'slicer', "
    "'2026-01-02T03:05:05.000006+00:00', 'edited', NULL, 'There.', "
    """'[{"n": 1, "label": "liver", "present": true, "voxels": 1}]', 'panel', 'v0')""",
    "UPDATE schema_version SET version = 2",
)


def schema_2(folder: Path) -> Path:
    """A state folder as version 2 wrote it: that of version 1, and a correction of its turn."""
    file = schema_1(folder)
    with sqlite3.connect(file) as raw:
        for statement in SCHEMA_2:
            raw.execute(statement)
    source = folder / "masks" / TURN[:2] / f"{TURN}.npz"
    target = folder / "corrections" / CORRECTION[:2] / f"{CORRECTION}.npz"
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    return file


SCHEMA_3 = (
    *migrations.statements(2, "sqlite"),
    "INSERT INTO rounds (created, started, status, trigger, editor, owner, options, data, progress, decision) VALUES "
    "('2026-01-02T03:06:05.000006+00:00', NULL, 'failed', 'hand', 'ann', '1 2.0 x', '{}', '{}', '{}', '{}')",
    "UPDATE schema_version SET version = 3",
)


def schema_3(folder: Path) -> Path:
    """A state folder as version 3 wrote it: that of version 2, and a round that has failed."""
    file = schema_2(folder)
    with sqlite3.connect(file) as raw:
        for statement in SCHEMA_3:
            raw.execute(statement)
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


def test_a_version_2_folder_keeps_turn_and_correction_and_takes_cases(tmp_path: Path) -> None:
    file = schema_2(tmp_path)
    turns = TurnStore(tmp_path)
    store = CorrectionStore(turns.database)
    assert turns.get(TURN).answer == "Here." and turns.mask(TURN, 1).mask.sum() == 1
    kept = store.get(CORRECTION)
    assert (kept.turn_id, kept.answer, kept.verdict) == (TURN, "There.", Verdict.EDITED)
    assert store.mask(CORRECTION, 1).mask.tolist() == [[False] * 3, [False, False, True]]
    slices = TrainingSlices(np.zeros((1, 2, 3, 3), np.uint8), np.ones((1, 1, 2, 3), bool), np.array([0]))
    cases = CaseStore(turns.database)
    made = cases.add(CORRECTION, "p" * 64, "image", "CT", "CT", slices)
    assert made.question == "Where is it?" and cases.cases() == [made]
    Scores(turns.database).add(CORRECTION, "liver", 0.5, "v0")
    assert Audit(turns.database).verify() is None
    with sqlite3.connect(file) as raw:
        assert raw.execute("select version from schema_version").fetchall() == [(migrations.SCHEMA,)]


def test_a_version_3_folder_keeps_its_rounds_which_may_go_on(tmp_path: Path) -> None:
    schema_3(tmp_path)
    turns = TurnStore(tmp_path)
    log = RoundLog(turns.database)
    (kept,) = log.rounds()
    assert (kept.editor, kept.status, kept.resumed, kept.heard) == ("ann", RoundStatus.FAILED, 0, None)
    assert log.reopen(kept.id, 1).resumed == 1


@pytest.mark.parametrize("older", [schema_1, schema_2, schema_3])
def test_a_migrated_folder_has_the_layout_of_a_new_one(tmp_path: Path, older: Callable[[Path], Path]) -> None:
    old = older(tmp_path / "old")
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


def test_the_steps_are_spelt_for_each_database() -> None:
    lite, postgres = ("\n".join(migrations.statements(2, name)) for name in ("sqlite", "postgresql"))
    assert "id INTEGER NOT NULL PRIMARY KEY" in lite and "dice DOUBLE NOT NULL" in lite
    assert "id SERIAL NOT NULL PRIMARY KEY" in postgres and "dice DOUBLE PRECISION NOT NULL" in postgres
    assert "{" not in lite + postgres


def test_an_older_database_comes_along_on_every_server(place: Place) -> None:
    place.open().dispose()  # makes the folder, and everything in the database
    fresh = place.open()
    with fresh.session() as session, session.begin():
        run = session.connection().exec_driver_sql
        for table in ("audit", "withdrawals", "charges", "versions", "rounds", "labels", "scores", "cases"):
            run(f"DROP TABLE {table}")
        for table in ("patients", "corrections", "turns", "schema_version"):
            run(f"DROP TABLE {table}")
        for statement in (*SCHEMA_1.split(";\n"), *SCHEMA_2):
            if statement.strip():
                run(statement)
    fresh.dispose()
    turns = place.turns()
    assert turns.get(TURN).findings == [{"n": 1, "label": "liver"}]
    assert CorrectionStore(turns.database).get(CORRECTION).turn_id == TURN
    scores = Scores(turns.database)
    scores.add(CORRECTION, "liver", 1 / 3, "v0")
    scores.add(CORRECTION, "cyst", 0.1, "v0")
    assert [score.dice for score in scores.of()] == [1 / 3, 0.1]  # 64 bits
    with turns.database.writing() as session:
        assert [Audit(turns.database).append(session, "ann", "x", "y") for _ in range(2)] == [1, 2]
