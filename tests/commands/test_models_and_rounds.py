"""`medsegr models` and `medsegr rounds` on a state folder, beside a server or without one."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medsegr.cli import app
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.registry import Registry
from medsegr.rounds.rounds_log import RoundLog, RoundStatus
from medsegr.rounds.starting import RUNNER_VARIABLE, RoundStarter

run = CliRunner()
DYING = "import sys; sys.exit(4)\n"


def checkpoint(folder: Path, version: str, weights: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"targets": ["liver"]}))
    (folder / "meta.json").write_text(json.dumps({"version": version}))
    (folder / "grounding.safetensors").write_text(weights)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> tuple[Registry, list[str]]:
    """A registry, and the options that name its state folder and base checkpoint."""
    base = checkpoint(tmp_path / "base", "base-1")
    registry = Registry(Database(tmp_path / "state"), base)
    return registry, ["--state", str(tmp_path / "state"), "--checkpoint", str(base)]


def test_versions_are_listed_promoted_and_taken_back(
    server: tuple[Registry, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, options = server
    monkeypatch.setenv("LOGNAME", "anna")
    one = registry.register(checkpoint(tmp_path / "work", "draft", "one"), "base-1", None).name
    done = run.invoke(app, ["models", "promote", one, *options, "--reason", "seen by the board"])
    assert done.exit_code == 0 and f"{one} is in charge" in done.stdout
    charge = registry.charges()[-1]
    assert (charge.version, charge.editor, charge.reason) == (one, "anna", "seen by the board")
    listed = run.invoke(app, ["models", "list", *options], env={"COLUMNS": "120"}).stdout
    marked = [line for line in listed.splitlines() if "*" in line]
    assert len(marked) == 1 and one in marked[0] and "base-1" in listed
    assert run.invoke(app, ["models", "rollback", *options]).exit_code == 0
    assert registry.current().name == "base-1"
    with pytest.raises(StoreError, match="none to go back to"):
        run.invoke(app, ["models", "rollback", *options], catch_exceptions=False)
    with pytest.raises(StoreError, match="no state folder"):
        run.invoke(app, ["models", "list", "--state", str(tmp_path / "nowhere")], catch_exceptions=False)
    assert not (tmp_path / "nowhere").exists()


def test_rounds_are_listed_and_shown(server: tuple[Registry, list[str]]) -> None:
    registry, options = server
    log = RoundLog(registry.database)
    round_ = log.create("hand", "anna", {"max_minutes": 3})
    log.start(round_.id, "base-1")
    log.finish(round_.id, RoundStatus.REFUSED, {"sentence": "Not adopted."})
    listed = run.invoke(app, ["rounds", "list", *options[:2]], env={"COLUMNS": "120"}).stdout
    assert "anna" in listed and "refused" in listed and "Not adopted." in listed
    shown = json.loads(run.invoke(app, ["rounds", "show", "1", *options[:2]]).stdout)
    assert shown["decision"]["sentence"] == "Not adopted." and shown["options"] == {"max_minutes": 3}
    with pytest.raises(StoreError, match="No round has this number"):
        run.invoke(app, ["rounds", "show", "7", *options[:2]], catch_exceptions=False)


def test_a_round_is_run_to_its_end_and_a_failure_is_told(
    server: tuple[Registry, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, options = server
    (tmp_path / "dying_runner.py").write_text(DYING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(RUNNER_VARIABLE, "dying_runner")
    ran = run.invoke(
        app, ["rounds", "run", *options, "--minutes", "2", "--device", "cpu", "--reason", "a test"]
    )
    assert ran.exit_code != 0 and "ended with code 4" in str(ran.exception)
    log = RoundLog(registry.database)
    (round_,) = log.rounds()
    assert round_.status is RoundStatus.FAILED and round_.trigger == "command line"
    assert round_.options == {"max_minutes": 2.0, "device": "cpu", "processes": 1, "reason": "a test"}
    again = run.invoke(app, ["rounds", "run", *options, "--resume", "1"])
    assert "ended with code 4" in str(again.exception) and len(log.rounds()) == 1
    log.create("hand", "ben", {})
    refused = run.invoke(app, ["rounds", "run", *options])
    assert "cancel it first" in str(refused.exception)


def test_a_round_of_another_process_can_be_cancelled(
    server: tuple[Registry, list[str]], tmp_path: Path
) -> None:
    """As by a server that was restarted: it knows the process by the round's row alone."""
    registry, _ = server
    script = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from medsegr.rounds.database import Database
        from medsegr.rounds.rounds_log import RoundLog
        log = RoundLog(Database(Path({str(registry.database.folder)!r})))
        log.start(log.create("hand", "anna", {{}}).id)
        print("runs", flush=True)
        time.sleep(300)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "runs\n"
        starter = RoundStarter(registry.database, registry.base.directory)
        assert starter.cancel(1, "ben").status is RoundStatus.CANCELLED
        other.wait(timeout=60)  # it would have slept on
    assert starter.log.get(1).error == "Cancelled by ben."
