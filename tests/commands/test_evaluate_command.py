"""`medsegr evaluate`: options, refusals and what it prints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medsegr import cli
from medsegr.errors import MedSegRError
from medsegr.evaluation import run as run_module
from medsegr.predictor import Finding, Reply
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Conversation, Target, Turn

runner = CliRunner()


class Upper:
    """Outlines the upper half of every image as "liver", unless it is asked for the spleen."""

    version, config, scales = "upper-1", "tiny", (1.0,)
    meta: dict[str, Any] = {}
    shape = (0, 0)

    def set_image(self, image: Any, modality: str | None = None) -> None:
        self.shape = image.pixels.shape[:2]

    def ask(self, question: str, history: Any = ()) -> Reply:
        if "spleen" in question:
            return Reply("No spleen is visible in this abdominal CT.", (), {})
        mask = np.zeros(self.shape, bool)
        mask[: self.shape[0] // 2] = True
        return Reply("The liver is outlined.", (Finding("liver", "liver", mask, 0.9),), {})


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
