"""`medsegr qa annotate` end to end, and the options that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medsegr import cli
from medsegr.errors import MedSegRError
from tests.annotation_endpoint import Endpoint, Sent, good, step_of, torso, write_hospital

runner = CliRunner()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.stop()


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    return write_hospital(tmp_path / "hospital", torso())


def test_it_writes_a_file_that_passes_the_check(
    hospital: Path, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_KEY", "sk-secret-9")
    endpoint.behaviour = lambda n, r: (
        Sent('{"verdict": "drop", "reason": "dull"}')
        if n == 3 and step_of(r.prompt) == "review"
        else Sent(good(r.prompt))
    )
    out = tmp_path / "qa.jsonl"
    options = ["--endpoint", endpoint.url, "--model", "m", "--api-key-env", "OUR_KEY", "--count", "2"]
    result = runner.invoke(
        cli.app, ["qa", "annotate", str(hospital), str(out), *options, "--concurrency", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "5 conversations about 2 targets in" in result.output
    assert "1 rejected, by step: review 1" in result.output
    assert {r.headers["Authorization"] for r in endpoint.requests} == {"Bearer sk-secret-9"}
    written = "".join(p.read_text() for p in tmp_path.glob("qa*"))
    assert "sk-secret-9" not in written + result.output
    assert "dull" in (tmp_path / "qa.rejected.jsonl").read_text()
    result = runner.invoke(cli.app, ["qa", "check", str(out)])
    assert "5 conversations, no problem found" in result.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "Expected either --endpoint with --model, or --local"),
        (["--endpoint", "http://127.0.0.1:1/v1", "--local", "x"], "Expected either"),
        (["--endpoint", "http://127.0.0.1:1/v1"], "--endpoint needs --model"),
        (
            ["--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--api-key-env", "NO_SUCH_KEY"],
            "variable NO_SUCH_KEY is not set",
        ),
        (["--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--timeout", "0"], "--timeout is 0"),
        (["--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--count", "0"], "Count is 0"),
        (["--local", "no-such-directory"], "no-such-directory is no model directory"),
    ],
)
def test_options_that_do_not_fit_are_refused(hospital: Path, options: list[str], expected: str) -> None:
    result = runner.invoke(
        cli.app, ["qa", "annotate", str(hospital), str(hospital.parent / "qa.jsonl"), *options]
    )
    assert isinstance(result.exception, MedSegRError)
    assert expected in str(result.exception)
    assert not (hospital.parent / "qa.jsonl").exists()
