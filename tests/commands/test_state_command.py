"""`medsegr state`: there and back, and what was taken out is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from medsegr.commands.state import state_app
from medsegr.errors import MedSegRError
from medsegr.rounds.audit import Audit
from medsegr.rounds.cases import CaseStore, TrainingSlices
from medsegr.rounds.corrections import CorrectionStore, NewCorrection, NewFinding, Origin, Verdict
from medsegr.rounds.database import Database
from medsegr.rounds.patients import PatientKeys
from medsegr.rounds.tables import AuditRow

runner = CliRunner()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with a case of the patient "PAT 1" by ann."""
    folder = tmp_path / "state"
    database = Database(folder)
    mask = NewFinding(None, "liver", np.packbits(np.ones((2, 3), bool)).tobytes(), 6)
    new = NewCorrection("scan", "ann", Verdict.EDITED, Origin.PANEL, (mask,), (2, 3), {"shape": [2, 3]})
    stored = CorrectionStore(database).add(new)
    slices = TrainingSlices(np.zeros((1, 2, 3, 3), np.uint8), np.ones((1, 1, 2, 3), bool), np.array([0]))
    key, kind = PatientKeys(folder).of("scan", "PAT 1")
    CaseStore(database).add(stored.id, key, kind, "CT", "CT", slices)
    database.dispose()
    return folder


def run(*arguments: str | Path, code: int = 0) -> str:
    done = runner.invoke(state_app, [str(part) for part in arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def test_a_state_comes_back(state: Path, tmp_path: Path) -> None:
    assert "files" in run("backup", str(tmp_path / "b.zip"), "--state", str(state))
    assert "are back" in run("restore", str(tmp_path / "b.zip"), "--state", str(tmp_path / "new"))
    assert len(CaseStore(Database(tmp_path / "new")).cases()) == 1


def test_a_broken_audit_is_told(state: Path) -> None:
    assert "are whole" in run("audit", "--state", str(state))
    database = Database(state)
    with database.session() as session, session.begin():
        session.execute(update(AuditRow).values(editor="nobody"))
    assert "Row 1" in run("audit", "--state", str(state), code=1)


def test_an_editor_is_withdrawn(state: Path) -> None:
    said = run("withdraw", "--state", str(state), "--of-editor", "ann", "--why", "Random.")
    assert "1 corrections" in said and "none" in said
    assert CaseStore(Database(state)).cases() == []
    with pytest.raises(MedSegRError, match="--of-editor"):
        run("withdraw", "--state", str(state), "--why", "Random.")


def test_an_editors_corrections_are_withdrawn_from_a_day_on(state: Path) -> None:
    usual = ("withdraw", "--state", str(state), "--of-editor", "ann", "--why", "Random.")
    assert "0 corrections" in run(*usual, "--since", "2999-01-01T08:00:00+01:00")
    assert len(CaseStore(Database(state)).cases()) == 1
    assert "1 corrections" in run(*usual, "--since", "2020-01-01")
    assert CaseStore(Database(state)).cases() == []
    with pytest.raises(MedSegRError, match="--since must be a date"):
        run(*usual, "--since", "last Tuesday")
    with pytest.raises(MedSegRError, match="--of-editor"):
        run(
            "withdraw",
            "--state",
            str(state),
            "--correction",
            "x",
            "--since",
            "2020-01-01",
            "--why",
            "Random.",
        )


def test_a_patient_is_removed_by_the_name_it_has(state: Path) -> None:
    with pytest.raises(MedSegRError, match="no such patient"):
        run("remove-patient", "--state", str(state), "--patient-id", "PAT 2")
    run("remove-patient", "--state", str(state), "--patient-id", "PAT 1")
    database = Database(state)
    assert CaseStore(database).cases() == [] and not list(state.glob("cases/*/*.npz"))
    assert "PAT 1" not in repr(Audit(database).entries())


def test_a_state_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(MedSegRError, match="does not exist"):
        run("audit", "--state", str(tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()


def test_a_folder_without_a_database_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    for command in (("backup", tmp_path / "b.zip"), ("audit",)):
        with pytest.raises(MedSegRError, match="has no medsegr.sqlite"):
            run(*command, "--state", tmp_path / "state")
    assert not (tmp_path / "b.zip").exists() and not any((tmp_path / "state").iterdir())


def test_a_postgres_database_is_asked_for_and_not_replaced_by_an_empty_one(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = "postgresql://u@127.0.0.1:9/none"
    with pytest.raises(MedSegRError, match="cannot be used|needs the package psycopg"):
        run("backup", tmp_path / "b.zip", "--state", state, "--database", nobody)
    monkeypatch.setenv("MEDSEGR_DATABASE", nobody)
    with pytest.raises(MedSegRError, match="cannot be used|needs the package psycopg"):
        run("backup", tmp_path / "b.zip", "--state", state)
    assert not (tmp_path / "b.zip").exists()
