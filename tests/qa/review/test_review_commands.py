"""`medsegr qa review`, `agreement` and `apply-reviews` as a user types them."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner

from medsegr import cli
from medsegr.errors import MedSegRError
from medsegr.qa.review.entries import TurnText, Verdict
from medsegr.qa.review.log import log_path_of
from medsegr.qa.review.queue import ReviewQueue

ACCEPT, EDIT, REJECT = Verdict
NEW = TurnText("Outline the spleen, please.", "The <p>spleen</p> [SEG] lies on the patient's left.")
runner = CliRunner()


@pytest.fixture
def reviewed(queue: ReviewQueue) -> ReviewQueue:
    """Ada: accept, edit, accept, reject; Bob: accept, edit, reject, reject."""
    for who, about_aorta in (("Ada", ACCEPT), ("Bob", REJECT)):
        queue.record("liver", who, ACCEPT)
        queue.record("spleen", who, EDIT, [NEW])
        queue.record("aorta", who, about_aorta)
        queue.record("hippocampus", who, REJECT)
    return queue


def test_agreement_prints_kappa(reviewed: ReviewQueue) -> None:
    """Observed 3/4; by chance (2*1 + 1*1 + 1*2)/16 = 5/16; kappa (12 - 5)/(16 - 5) = 7/11 = 0.636."""
    result = runner.invoke(cli.app, ["qa", "agreement", str(reviewed.file)])
    assert result.exit_code == 0, result.output
    row = next(line for line in result.output.splitlines() if "Ada and Bob" in line)
    assert re.findall(r"[\d.]+", row) == ["4", "0.750", "0.636"]


def test_agreement_with_fewer_than_two_reviewers(queue: ReviewQueue) -> None:
    result = runner.invoke(cli.app, ["qa", "agreement", str(queue.file)])
    assert isinstance(result.exception, MedSegRError) and "no verdict yet" in str(result.exception)
    queue.record("liver", "Ada", ACCEPT)
    assert "second reviewer" in runner.invoke(cli.app, ["qa", "agreement", str(queue.file)]).output


def test_apply_reviews_writes_and_lists(reviewed: ReviewQueue) -> None:
    out = reviewed.root / "out.jsonl"
    result = runner.invoke(cli.app, ["qa", "apply-reviews", str(reviewed.file), str(out)])
    assert result.exit_code == 0, result.output
    assert "aorta: stays auto (Ada accept, Bob reject)" in result.output
    assert "1 accepted, 1 edited, 1 rejected, 1 unsettled, 0 waiting for verdicts" in result.output
    assert len(out.read_text().splitlines()) == 4 and log_path_of(out).exists()
    assert runner.invoke(cli.app, ["qa", "check", str(out)]).exit_code == 0


def test_review_serves_the_file_and_keeps_verdicts_where_it_was_told(qa_file: Path, tmp_path: Path) -> None:
    log = tmp_path / "verdicts.jsonl"
    command = [sys.executable, "-c", "from medsegr.cli import main; main()", "qa", "review", str(qa_file)]
    process = subprocess.Popen(
        [*command, "--reviewer", "Ada", "--port", "0", "--log", str(log)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        printed = [process.stdout.readline(), process.stdout.readline()]
        assert printed[0].startswith("4 conversations")
        url = re.findall(r"http://127\.0\.0\.1:\d+/medsegr/review", printed[1])[0]
        assert requests.get(f"{url}/state", timeout=30).json()["reviewer"] == "Ada"
        body = {"id": "liver", "reviewer": "Ada", "verdict": "accept"}
        assert requests.post(f"{url}/verdicts", json=body, timeout=30).status_code == 200
        assert len(log.read_text().splitlines()) == 1 and not log_path_of(qa_file).exists()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def test_a_taken_port_a_missing_file_and_an_empty_name_are_sentences(qa_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = runner.invoke(cli.app, ["qa", "review", str(qa_file), "--port", port])
        assert isinstance(result.exception, MedSegRError) and f"port {port}" in str(result.exception)
    for arguments in (["nowhere.jsonl"], [str(qa_file), "--reviewer", " "]):
        result = runner.invoke(cli.app, ["qa", "review", *arguments, "--port", "0"])
        assert isinstance(result.exception, MedSegRError)
    (qa_file.parent / "empty.jsonl").write_text("")
    result = runner.invoke(cli.app, ["qa", "review", str(qa_file.parent / "empty.jsonl")])
    assert isinstance(result.exception, MedSegRError) and "holds no conversation" in str(result.exception)
