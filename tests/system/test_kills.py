"""The benchmark of kills: what it looks at would show every fault that it is there to find, and a few kills find none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from medsegr.rounds.audit import append
from medsegr.rounds.cases import CaseStore, TrainingSlices
from medsegr.rounds.corrections import CorrectionStore, NewCorrection, NewFinding, Origin, Verdict
from medsegr.rounds.database import Database
from medsegr.rounds.registry import Registry
from medsegr.rounds.rounds_log import RoundLog
from medsegr.rounds.store import NewTurn, TurnStore

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # as it is for the script

from kills_parts import checking  # noqa: E402
from kills_parts.clinic import Accepted, Answer, Phase, mask_hash  # noqa: E402
from kills_parts.killing import plan  # noqa: E402

pytestmark = pytest.mark.system
SIDE = 16
DEAD = "4194304 0.00 here"
"""No process has this number."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """What looks like the checkpoint that a server was started with."""
    return _checkpoint(tmp_path / "base", b"weights")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def accepted(state: Path, base: Path) -> Accepted:
    """A state with one turn, one correction, one round and one promoted version, all of them accepted."""
    store = TurnStore(state)
    database = store.database
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[2:9, 3:8] = True
    packed = np.packbits(mask).tobytes()
    turn = store.add(NewTurn("a", "Where is the liver?"))
    store.finish(
        turn, answer="Here.", findings=[{"label": "liver"}], model_version="base", latencies={}, masks=[packed],
        shape=mask.shape, geometry={},
    )  # fmt: skip
    finding = NewFinding(1, "liver", packed, int(mask.sum()))
    stored = CorrectionStore(database).add(
        NewCorrection("a", "ann", Verdict.EDITED, Origin.PANEL, (finding,), mask.shape, {}, turn_id=turn)
    )
    with database.writing() as session:
        append(session, "ann", "correction", stored.id)
    rgb = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    slices = TrainingSlices(rgb, mask[None, None], np.zeros(1, np.int64))
    CaseStore(database).add(stored.id, "p", "image", "CT", "CT", slices)
    log = RoundLog(database)
    round_ = log.create("hand", "ann")
    log.cancel(round_.id, "ann")
    registry = Registry(database, base)
    version = registry.register(_checkpoint(state / "rounds" / "work", b"better"), "base", None)
    registry.promote(version.name, "ann", "")
    (charge,) = registry.charges()
    store.dispose()
    return Accepted(
        {turn: Answer(turn, "Here.", ("liver",))},
        {stored.id: {"liver": mask_hash(mask)}},
        [round_.id],
        [(charge.version, charge.action, charge.created)],
    )


def _checkpoint(folder: Path, weights: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"targets": ["liver"]}))
    (folder / "meta.json").write_text(json.dumps({"version": folder.name, "licence": "CC0"}))
    (folder / "grounding.safetensors").write_bytes(weights)
    return folder


def _sql(statement: str) -> Callable[[Path], None]:
    def plant(state: Path) -> None:
        database = Database(state)
        with database.session() as session:
            session.execute(text("PRAGMA foreign_keys=OFF"))
            session.execute(text(statement))
            session.commit()
        database.dispose()

    return plant


def _delete(pattern: str) -> Callable[[Path], None]:
    def plant(state: Path) -> None:
        (found,) = state.glob(pattern)
        found.unlink()

    return plant


def _other_mask(state: Path) -> None:
    database = Database(state)
    (found,) = (state / "corrections").glob("*/*.npz")
    packed = np.packbits(np.eye(SIDE, dtype=np.bool_)).tobytes()
    database.correction_masks.write(found.stem, [packed], (SIDE, SIDE), {})
    database.dispose()


def _other_weights(state: Path) -> None:
    (found,) = (state / "models").glob("*/grounding.safetensors")
    found.chmod(0o644)
    found.write_bytes(b"half")


def _look(state: Path, base: Path, accepted: Accepted) -> tuple[list[str], list[str]]:
    with closing(checking.Inspector(state, base)) as inspector:
        return list(inspector.lost(accepted)), list(inspector.broken())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens in the background here."""
    monkeypatch.setattr(checking, "PATIENCE_S", 0.0)


def test_nothing_is_said_of_a_whole_state(state: Path, base: Path, accepted: Accepted) -> None:
    assert _look(state, base, accepted) == ([], [])


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (_sql("DELETE FROM corrections"), "is gone"),
        (_delete("corrections/*/*.npz"), "lost or damaged"),
        (_other_mask, "has another mask"),
        (_sql("DELETE FROM turns"), "is gone"),
        (_sql("UPDATE turns SET status = 'failed'"), "is failed"),
        (_sql("DELETE FROM charges"), "not in the list of charges"),
        (_sql("DELETE FROM rounds"), "round 1 is gone"),
    ],
    ids=[
        "correction",
        "mask file",
        "another mask",
        "turn",
        "answer",
        "promotion",
        "round",
    ],
)
def test_what_is_lost_is_found(
    state: Path, base: Path, accepted: Accepted, plant: Callable[[Path], None], said: str
) -> None:
    plant(state)
    lost, _ = _look(state, base, accepted)
    assert any(said in sentence for sentence in lost), lost


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (_sql("DELETE FROM turns"), "a row of corrections points to nothing"),
        (_sql("UPDATE audit SET editor = 'eve' WHERE id = 2"), "row 2 of the audit"),
        (_sql("DELETE FROM charges"), "the audit tells of 1"),
        (_sql("DELETE FROM versions"), "the audit tells of 1"),
        (_other_weights, "is damaged"),
        (_delete("masks/*/*.npz"), "lost or damaged"),
        (_delete("cases/*/*.npz"), "lost or damaged"),
        (_sql("DELETE FROM cases"), "no training slices"),
        (_sql("UPDATE turns SET status = 'running'"), "for ever"),
        (_sql(f"UPDATE rounds SET status = 'running', owner = '{DEAD}'"), "nothing runs it"),
        (_sql("UPDATE rounds SET status = 'adopted', challenger = 'v9'"), "not there"),
    ],
    ids=[
        "foreign key",
        "audit",
        "charge untold",
        "version untold",
        "half a version",
        "turn's masks",
        "slices",
        "no case",
        "open turn",
        "dead round",
        "adopted nothing",
    ],
)
def test_what_is_broken_is_found(
    state: Path, base: Path, accepted: Accepted, plant: Callable[[Path], None], said: str
) -> None:
    plant(state)
    _, broken = _look(state, base, accepted)
    assert any(said in sentence for sentence in broken), broken


def test_every_phase_is_killed_equally_often() -> None:
    kills = plan(60, seed=3)
    assert {phase: sum(kill.phase is phase for kill in kills) for phase in Phase} == dict.fromkeys(Phase, 12)
    assert [kill.phase for kill in kills] != [kill.phase for kill in plan(60, seed=4)]
    assert len({(kill.phase, kill.target) for kill in kills}) == 16


@pytest.mark.slow
@pytest.mark.skipif("MEDSEGR_KILLS" not in os.environ, reason="takes minutes; MEDSEGR_KILLS=1 runs it")
def test_a_few_kills_lose_nothing(tmp_path: Path) -> None:
    out = tmp_path / "kills.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--kills", "4", "--checkpoint", "tiny"]
    done = subprocess.run(
        [*command, "--images", "6", "--out", str(out)], cwd=tmp_path, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(out.read_text())
    assert len(report["kills"]) == 4 and report["accepted"]["corrections"] > 0
    assert not any(kill["lost"] or kill["broken"] for kill in report["kills"])
