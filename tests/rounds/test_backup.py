"""Backup and restore: everything comes back, on a working server as well, or nothing does."""

from __future__ import annotations

import json
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import URL
from state_rows import answered, block, case, corrected

from medsegr.rounds.audit import Audit
from medsegr.rounds.backup import MANIFEST, backup, restore
from medsegr.rounds.cases import CaseStore
from medsegr.rounds.corrections import CorrectionStore
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.migrations import SCHEMA
from medsegr.rounds.patients import PatientKeys
from medsegr.rounds.store import TurnStore


@pytest.fixture
def state(tmp_path: Path) -> TurnStore:
    """A state with a turn, its correction, a case and a version's files."""
    turns = TurnStore(tmp_path / "state")
    turn = answered(turns, liver=block(1))
    corrected(turns.database, turn=turn, liver=block(2))
    case(turns.database, PatientKeys(turns.folder).of("img", "P")[0])
    version = turns.database.paths.models / "v0001-abcd"
    version.mkdir()
    (version / "meta.json").write_text("{}")
    (version / "model.safetensors").write_bytes(b"weights" * 1000)
    (version / "model.safetensors").chmod(0o444)
    (turns.database.paths.models / ".draft").mkdir()
    (turns.database.paths.models / ".draft" / "half").write_text("x")
    work = turns.database.paths.rounds / "1"
    (work / "challenger").mkdir(parents=True)
    (work / "challenger" / "weights").write_text("x")
    (work / "page.html").write_text("adopted")
    (turns.folder / "skipped.jsonl").write_text("{}")
    (turns.folder / "removals").mkdir()
    (turns.folder / "removals" / "7.json").write_text("{}")
    (turns.folder / "login").mkdir()
    (turns.folder / "login" / "tokens.jsonl").write_text("secret")
    return turns


def test_everything_comes_back(state: TurnStore, tmp_path: Path) -> None:
    target = tmp_path / "backup.zip"
    made = backup(state.database, target)
    assert target.stat().st_mode & 0o777 == 0o600 and made.schema == SCHEMA and made.files >= 6
    with zipfile.ZipFile(target) as archive:
        listed = archive.namelist()
    names = set(listed)
    first = next(n for n, name in enumerate(listed) if "/" in name)
    assert listed[first] == "removals/7.json"  # what ends while the others are packed is deleted once more
    assert "patient.key" in names and "models/v0001-abcd/meta.json" in names
    assert {"rounds/1/page.html", "skipped.jsonl", "removals/7.json"} < names and not any(
        "challenger" in n for n in names
    )
    assert not any("draft" in name or "token" in name or name.endswith(".part") for name in names)

    assert restore(target, tmp_path / "new") == made
    again = TurnStore(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    assert again.turns() == state.turns() and again.mask(again.turns()[0].id, 1).mask.sum() == 6
    corrections = CorrectionStore(again.database)
    assert corrections.corrections() == CorrectionStore(state.database).corrections()
    assert all(corrections.mask(c.id, 1).mask.sum() == 12 for c in corrections.corrections())
    cases = CaseStore(again.database)
    assert cases.cases() == CaseStore(state.database).cases()
    assert np.array_equal(
        cases.read(cases.cases()[0].correction.id).rgb,
        CaseStore(state.database).read(cases.cases()[0].correction.id).rgb,
    )
    assert Audit(again.database).verify() is None
    assert PatientKeys(again.folder).of("img", "P") == PatientKeys(state.folder).of("img", "P")
    weights = again.database.paths.models / "v0001-abcd" / "model.safetensors"
    assert weights.read_bytes() == b"weights" * 1000 and weights.stat().st_mode & 0o777 == 0o444
    again.dispose()


def test_a_backup_of_a_busy_server_is_whole(state: TurnStore, tmp_path: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            case(state.database, "p1")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        backup(state.database, tmp_path / "backup.zip")
    finally:
        stop.set()
        worker.join()
    restore(tmp_path / "backup.zip", tmp_path / "new")
    database = Database(tmp_path / "new")
    cases = CaseStore(database)
    for found in cases.cases():
        assert cases.read(found.correction.id).sha256() == found.sha256
    for correction in CorrectionStore(database).corrections(limit=10_000):
        assert CorrectionStore(database).mask(correction.id, 1).mask.any()
    assert Audit(database).verify() is None
    database.dispose()


def test_nothing_is_overwritten(state: TurnStore, tmp_path: Path) -> None:
    target = tmp_path / "backup.zip"
    target.write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        backup(state.database, target)
    assert target.read_text() == "mine"
    target.unlink()
    backup(state.database, target)
    with pytest.raises(StoreError, match="not empty"):
        restore(target, state.folder)
    (tmp_path / "empty").mkdir()
    restore(target, tmp_path / "empty")
    assert (tmp_path / "empty" / "medsegr.sqlite").is_file()
    with pytest.raises(StoreError, match="cannot be written"):
        backup(state.database, tmp_path / "none" / "backup.zip")


def test_a_postgres_database_has_its_own_tools(
    state: TurnStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "is_sqlite", False)
    monkeypatch.setattr(Database, "url", URL.create("postgresql"))
    with pytest.raises(StoreError, match="pg_dump"):
        backup(state.database, tmp_path / "backup.zip")
    assert not (tmp_path / "backup.zip").exists()


@pytest.mark.parametrize("damage", ["text", "cut", "no manifest", "changed", "outside", "newer", "missing"])
def test_a_damaged_backup_leaves_nothing(state: TurnStore, tmp_path: Path, damage: str) -> None:
    target = tmp_path / "backup.zip"
    backup(state.database, target)
    with zipfile.ZipFile(target) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents[MANIFEST])
    if damage == "changed":
        contents["models/v0001-abcd/meta.json"] = b"{ }"
    elif damage == "outside":
        manifest["files"]["../escaped"] = manifest["files"]["models/v0001-abcd/meta.json"]
        contents["../escaped"] = b"{}"
    elif damage == "newer":
        manifest["schema"] = 99
    elif damage == "missing":
        del contents["medsegr.sqlite"]
    contents[MANIFEST] = json.dumps(manifest).encode()
    if damage == "no manifest":
        del contents[MANIFEST]
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    if damage == "text":
        target.write_text("not a zip")
    elif damage == "cut":
        target.write_bytes(target.read_bytes()[:-100])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StoreError) as caught:
        restore(target, tmp_path / "new")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
