"""`medsegr evaluate`: options, refusals and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from medsegr import cli
from medsegr.commands.evaluate import tables
from medsegr.errors import MedSegRError
from medsegr.evaluation import run as run_module
from medsegr.predictor import Finding, Reply
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Conversation, Target, Turn
from medsegr.reply import Measured

runner = CliRunner()


class Upper:
    """Outlines the upper half of every image as "liver", unless it is asked for the spleen."""

    version, config, scales = "upper-1", "tiny", (1.0,)
    meta: dict[str, Any] = {}
    shape = (0, 0)
    measured: Measured | None = None

    def set_image(self, image: Any, modality: str | None = None) -> None:
        self.shape = image.pixels.shape[:2]

    def ask(self, question: str, history: Any = ()) -> Reply:
        if "spleen" in question:
            return Reply("No spleen is visible in this abdominal CT.", (), {})
        mask = np.zeros(self.shape, bool)
        mask[: self.shape[0] // 2] = True
        text = "The liver is outlined."
        found = (Finding("liver", "liver", mask, 0.9),)
        return Reply(
            f"{text} {self.measured.text}" if self.measured else text, found, {}, measured=self.measured
        )


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images of a liver that fills the upper half; each is asked for the liver and for the spleen."""
    upper = SimpleNamespace(from_pretrained=lambda name, device: Upper())
    monkeypatch.setattr(run_module, "Predictor", upper)
    labels = np.zeros((16, 16), np.uint8)
    labels[:8] = 1
    conversations = []
    for n in range(6):
        Image.fromarray(labels * 90).save(tmp_path / f"{n}.png")
        Image.fromarray(labels).save(tmp_path / f"{n}-mask.png")
        target = Target("liver", "liver", f"{n}-mask.png", (1,))
        turns = (
            Turn("Where is the liver?", "The <p>liver</p> [SEG] is outlined.", (target,)),
            Turn("And the spleen?", "No spleen is visible in this abdominal CT.", (), "absent_same_set", None, ("spleen",)),
        )  # fmt: skip
        conversations.append(Conversation(f"c{n}", f"{n}.png", "CT", "toy", f"p{n}", "val", turns))
    write_qa(tmp_path / "qa.jsonl", conversations)
    return tmp_path / "qa.jsonl"


def test_tables_of_a_file(file: Path) -> None:
    out = file.parent / "out"
    arguments = ["evaluate", "--qa", str(file), "--out", str(out)]
    for _ in range(2):  # the second time everything is there already
        result = runner.invoke(cli.app, arguments, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        lines = {
            line.split("│")[1].strip(): line for line in result.output.splitlines() if line.count("│") > 2
        }
        assert "upper-1: 12 questions, split val" in result.output
        assert "1.000" in lines["explicit"] and "1.000" in lines["dice"]
        assert "1.000" in lines["absent in the same set, by name"] and "1.000–1.000" in result.output
        assert "0.100" in lines["calibration error of the confidence"], "sure by 0.9 and always right"
        assert str(out / "report.html") in result.output
    assert {p.name for p in out.iterdir()} == {
        "metrics.json",
        "per_case.csv",
        "report.html",
        "run.json",
        "masks",
    }


def test_refusals(file: Path) -> None:
    out = str(file.parent / "out")
    for arguments in ([], ["--qa", str(file), "--data", str(file.parent)]):
        result = runner.invoke(cli.app, ["evaluate", "--out", out, *arguments])
        assert isinstance(result.exception, MedSegRError) and "exactly one" in str(result.exception)
    runner.invoke(cli.app, ["evaluate", "--qa", str(file), "--out", out])
    result = runner.invoke(cli.app, ["evaluate", "--qa", str(file), "--out", out, "--every", "2"])
    assert isinstance(result.exception, MedSegRError) and "every 1, not 2" in str(result.exception)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A labelled folder of six abdominal CT slices: a liver in the upper half, off the middle; in one, a spleen in the
    middle below it."""

    class Left(Upper):
        measured = Measured("side", "left", "Here it lies in the upper left of the image.")

    monkeypatch.setattr(run_module, "Predictor", SimpleNamespace(from_pretrained=lambda name, device: Left()))
    base = tmp_path / "data" / "toy"
    for name in ("images", "masks"):
        (base / name).mkdir(parents=True)
    for n in range(6):
        labels = np.zeros((16, 16), np.uint8)
        labels[:8, :12] = 1
        labels[12:, 6:10] = 2 if n == 0 else 0
        Image.fromarray(labels).save(base / "masks" / f"{n}.png")
        Image.fromarray(labels * 90).save(base / "images" / f"{n}.png")
    record = {
        "name": "toy", "modality": "CT", "region": "abdomen", "targets": {"liver": [1], "spleen": [2]},
        "labels_are_exhaustive": True, "licence": "CC0", "licence_class": "permissive",
        "images": {str(n): {"patient_id": f"p{n}", "split": "val"} for n in range(6)},
    }  # fmt: skip
    (base / "dataset.json").write_text(json.dumps(record))
    return tmp_path / "data"


def test_abilities_of_a_folder(folder: Path) -> None:
    out = folder.parent / "out"
    arguments = ["evaluate", "--data", str(folder), "--abilities", "--out", str(out)]
    result = runner.invoke(cli.app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "upper-1: abilities" in result.output
    rows: dict[str, list[str]] = {}
    for line in result.output.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if len(cells) == 7 and cells[0]:
            rows[cells[0]] = cells[1:]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["abilities"] and set(rows) == set(metrics["by_kind"])
    assert set(rows) == {"explicit", "everything", "side", "reason asked for", "comparison", "neighbour"}
    # n, dice, measured, listed, reason, chose: the upper half has 128 pixels, the liver 96 of them
    assert rows["side"][:4] == ["6", "0.857", "1.000", "-"]
    listed = metrics["by_kind"]["everything"]["figures"]["listed"]["value"]
    assert listed == pytest.approx((5 + 2 / 3) / 6) and rows["everything"][3] == f"{listed:.3f}"
    assert rows["comparison"][2] == "0.000", "a comparison was not measured"
    again = runner.invoke(cli.app, ["evaluate", "--data", str(folder), "--out", str(out)])
    assert isinstance(again.exception, MedSegRError) and "abilities True, not False" in str(again.exception)


def test_follow_ups_are_shown_turn_by_turn(capsys: pytest.CaptureFixture[str]) -> None:
    turns = {f"turn {n}": {"dice": 1 - 0.25 * n, "n": 4} for n in (1, 2, 3)}
    metrics = {"checkpoint": "toy-1", "abilities": True, "by_kind": {}, "follow_ups": turns}
    (table,) = tables(metrics)
    Console(width=120).print(table)
    lines = [
        line.split("│")[1:4] for line in capsys.readouterr().out.splitlines() if "of three by name" in line
    ]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["turn 1 of three by name", "4", "0.750"],
        ["turn 2 of three by name", "4", "0.500"],
        ["turn 3 of three by name", "4", "0.250"],
    ]


def test_abilities_of_a_file_are_refused_in_one_line(file: Path) -> None:
    arguments = ["evaluate", "--qa", str(file), "--abilities", "--out", str(file.parent / "out")]
    result = runner.invoke(cli.app, arguments)
    assert isinstance(result.exception, MedSegRError)
    assert str(result.exception) == "--abilities asks about a folder of labelled sets; expected --data."
    assert not (file.parent / "out").exists()
