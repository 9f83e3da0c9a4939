"""`medsegr qa build` and `medsegr qa check` on a labelled folder of two images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medsegr import cli
from medsegr.errors import MedSegRError

runner = CliRunner()


@pytest.fixture
def labelled(tmp_path: Path, repository: Path) -> Path:
    """A folder with one set: two CT pictures with a liver and a spleen, one for training and one for validation."""
    folder = tmp_path / "data" / "toy"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    mask = np.zeros((64, 64), np.uint8)
    mask[5:30, 5:30], mask[40:60, 40:60] = 1, 2
    for stem in ("a", "b"):
        Image.fromarray(mask * 100).save(folder / "images" / f"{stem}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
    return folder.parent


def describe(folder: Path) -> None:
    text = {
        "name": "toy",
        "modality": "CT",
        "region": "abdomen",
        "targets": {"liver": [1], "spleen": [2]},
        "labels_are_exhaustive": True,
        "licence": "CC0",
        "licence_class": "permissive",
        "images": {
            "a": {"patient_id": "p1", "split": "train"},
            "b": {"patient_id": "p2", "split": "val"},
        },
    }
    (folder / "toy" / "dataset.json").write_text(json.dumps(text))


def test_what_is_built_passes_the_check_and_damage_does_not(labelled: Path) -> None:
    describe(labelled)
    out = labelled / "qa.jsonl"
    result = runner.invoke(cli.app, ["qa", "build", str(labelled), str(out), "--count", "12", "--seed", "3"])
    assert result.exit_code == 0, result.output
    assert len(out.read_text().splitlines()) == 12
    result = runner.invoke(cli.app, ["qa", "check", str(out)])
    assert result.exit_code == 0, result.output
    assert "12 conversations, no problem found" in result.output
    (labelled / "toy" / "images" / "a.png").unlink()
    result = runner.invoke(cli.app, ["qa", "check", str(out), "--show", "2"])
    assert result.exit_code == 1
    assert "problems, 2 shown" in result.output


def test_the_same_seed_gives_the_same_file(labelled: Path) -> None:
    describe(labelled)
    files = [labelled / f"{n}.jsonl" for n in range(3)]
    for file, seed in zip(files, "112", strict=True):
        runner.invoke(cli.app, ["qa", "build", str(labelled), str(file), "--count", "10", "--seed", seed])
    first, second, other = (file.read_bytes() for file in files)
    assert first == second != other


def test_an_unknown_licence_class_is_refused(labelled: Path) -> None:
    result = runner.invoke(cli.app, ["qa", "build", str(labelled), "x.jsonl", "--licence", "mine"])
    assert isinstance(result.exception, MedSegRError)
