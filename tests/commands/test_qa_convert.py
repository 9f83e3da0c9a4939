"""`medsegr qa export` and `medsegr qa import`: there and back, one line about what was lost, one sentence about what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medsegr import cli
from medsegr.errors import QAFileError
from medsegr.qa.reader import read_qa, write_qa
from medsegr.qa.schema import Conversation, Target, Turn

runner = CliRunner()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One conversation of two turns about a picture with a liver."""
    mask = np.zeros((9, 9), np.uint8)
    mask[2:5, 2:7] = 4
    Image.fromarray(mask * 20).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    turn = Turn(
        "Which makes bile?", "The <p>liver</p> [SEG].", (Target("liver", "liver", "m.png", (4,)),), "implicit"
    )
    absent = Turn("And the spleen?", "No spleen is visible.", (), "absent_same_set", None, ("spleen",))
    write_qa(tmp_path / "qa.jsonl", [Conversation("c", "a.png", "CT", "toy", "p", "val", (turn, absent))])
    return tmp_path / "qa.jsonl"


@pytest.mark.parametrize(
    ("name", "back", "lost"),
    [
        ("reasonseg", "", "1 answers, 1 exact pixels (images made JPEG), 1 follow-up turns"),
        ("medisee", "val.jsonl", "1 answers, 1 follow-up turns"),
        ("med-reasonseg", "val.jsonl", "1 follow-up turns"),
        ("biomedparse", "", "1 answers, 1 questions in other words, 1 questions without a target"),
        ("coco", "val/annotations.json", "2 questions and answers, 1 questions without a target"),
    ],
)
def test_there_and_back(file: Path, name: str, back: str, lost: str) -> None:
    folder = file.parent / "out"
    result = runner.invoke(cli.app, ["qa", "export", name, str(file), str(folder)])
    assert result.exit_code == 0, result.output
    assert f"1 records in {folder}" in result.output
    assert f"Not carried by {name}: {lost}." in result.output
    again = file.parent / "again.jsonl"
    arguments = [
        "qa",
        "import",
        name,
        str(folder / back),
        str(again),
        "--modality",
        "CT",
        "--split",
        "val",
        "--label",
        "liver",
    ]
    result = runner.invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert f"1 conversations in {again}" in result.output
    (conversation,) = read_qa(again)
    assert (conversation.split, conversation.turns[0].targets[0].label) == ("val", "liver")
    assert runner.invoke(cli.app, ["qa", "check", str(again)]).exit_code == 0


def test_what_is_wrong_is_one_sentence_with_file_and_line(file: Path) -> None:
    file.write_text(file.read_text().replace('"value": 4', '"value": 9'))
    result = runner.invoke(cli.app, ["qa", "export", "coco", str(file), str(file.parent / "out")])
    assert isinstance(result.exception, QAFileError)
    assert str(result.exception) == f"{file}:1: mask 'm.png' has none of the values [9] of 'liver'."
    assert not (file.parent / "out").exists()
