"""Records of rounds: what a reader of TensorBoard and MLflow finds, and that nothing leaves the machine."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medsegr.rounds import tracking
from medsegr.rounds.tables import RoundStatus
from medsegr.rounds.tracking import MLFLOW, TENSORBOARD, Tracker, TrackingError

SCRIPT = """
import json, socket, sys
from pathlib import Path
tried = []
connect = socket.socket.connect
def refuse(self, address):
    if self.family == socket.AF_UNIX:
        return connect(self, address)
    tried.append(repr(address))
    raise OSError("no network")
socket.socket.connect = refuse
socket.getaddrinfo = lambda host, *more, **named: (tried.append(repr(host)), (_ for _ in ()).throw(OSError()))[1]
from medsegr.rounds.tables import RoundStatus
from medsegr.rounds.tracking import Tracker
for number, status in ((1, RoundStatus.ADOPTED), (2, RoundStatus.FAILED)):
    tracker = Tracker(Path(sys.argv[1]), number, {"steps": 300, "replay": True})
    for step in range(3):
        tracker.metric("dice/Baker's cyst", 0.25 * step + number, step)
    tracker.finish(f"Decision {number}.", status)
print(json.dumps(tried))
"""


@pytest.fixture
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which MLflow is not installed; its import alone takes seconds."""

    def missing() -> None:
        raise ImportError("no mlflow")

    monkeypatch.setattr(tracking, "_quiet_mlflow", missing)


def scalars(folder: Path, run: str) -> EventAccumulator:
    found = EventAccumulator(str(folder / TENSORBOARD / run))
    found.Reload()
    return found


@pytest.mark.slow
def test_mlflow_has_a_run_per_round_and_calls_nobody(tmp_path: Path) -> None:
    pytest.importorskip("alembic")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTEST_CURRENT_TEST", "CI")}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "false", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "tracking"],  # a relative folder
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    if not (tmp_path / "tracking" / MLFLOW).exists():
        pytest.skip(f"MLflow is not installed: {done.stderr[-200:]}")
    assert json.loads(done.stdout.splitlines()[-1]) == []
    with sqlite3.connect(tmp_path / "tracking" / MLFLOW) as database:
        runs = dict(database.execute("select name, status from runs").fetchall())
        assert runs == {"round 0001": "FINISHED", "round 0002": "FAILED"}
        first = database.execute("select run_uuid from runs where name = 'round 0001'").fetchone()[0]
        values = database.execute(
            "select key, step, value from metrics where run_uuid = ? order by step", (first,)
        ).fetchall()
        assert values == [("dice/Baker_s cyst", n, 1 + 0.25 * n) for n in range(3)]
        params = database.execute("select key, value from params where run_uuid = ?", (first,)).fetchall()
        assert dict(params) == {"steps": "300", "replay": "True"}
        tags = dict(database.execute("select key, value from tags where run_uuid = ?", (first,)).fetchall())
    assert tags["mlflow.note.content"] == "Decision 1."
    assert tags["status"] == "adopted"


@pytest.mark.usefixtures("without_mlflow")
def test_tensorboard_shows_values_settings_and_decision(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, 7, {"steps": 300, "device": "cuda:0", "reason": "Mrs Example asked for it"})
    tracker.metric("loss", 2.0, 0)
    tracker.metric("loss", 1.5, 1)
    tracker.finish("Adopted, because it is better.", RoundStatus.ADOPTED)
    found = scalars(tmp_path, "round-0007")
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(0, 2.0), (1, 1.5)]
    texts = {
        tag: found.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in found.Tags()["tensors"]
    }
    assert "| steps | 300 |" in texts["settings/text_summary"]
    assert "| device | cuda:0 |" in texts["settings/text_summary"]
    assert not any(b"Example" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert texts["decision/text_summary"] == "Adopted, because it is better."


@pytest.mark.usefixtures("without_mlflow")
def test_a_round_ends_well_without_mlflow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker(tmp_path, 3, {})
    tracker.finish("Refused.")
    assert "no record of round 3" in caplog.text
    with pytest.raises(TrackingError, match="finished"):
        tracker.metric("loss", 1.0, 1)
    with pytest.raises(TrackingError, match="finished"):
        tracker.finish("Again.")


@pytest.mark.usefixtures("without_mlflow")
def test_a_folder_that_cannot_be_written_costs_the_record_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    tracker = Tracker(tmp_path / "file", 4, {"steps": 1})
    tracker.metric("loss", 1.0, 1)
    tracker.finish("Adopted.", RoundStatus.ADOPTED)
    assert "TensorBoard has no record of round 4" in caplog.text
