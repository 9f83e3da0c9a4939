"""`medsegr ask` end to end, with a predictor that needs no weights."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medsegr import cli
from medsegr.commands.ask import parse_slices
from medsegr.commands.replies import size_in_words
from medsegr.errors import MedSegRError

from .conftest import BrightSpots

runner = CliRunner()


def test_prints_answer_confidence_and_size(bright: BrightSpots, spot_png: Path) -> None:
    result = runner.invoke(cli.app, ["ask", str(spot_png), "What is bright?"])
    assert result.exit_code == 0, result.output
    for expected in (
        "The bright spot is outlined.",
        "83%",
        "20 pixels (the image has no spacing)",
        "test-1, CC0",
    ):
        assert expected in result.output


def test_writes_answer_mask_and_overlay_on_the_grid(
    bright: BrightSpots, spot_png: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = runner.invoke(cli.app, ["ask", str(spot_png), "What is bright?", "--out", str(out)])
    assert result.exit_code == 0, result.output
    answer = json.loads((out / "answer.json").read_text())
    assert answer["answer"] == "The bright spot is outlined."
    (finding,) = answer["findings"]
    assert finding["area_px"] == 20
    assert finding["confidence"] == 0.83
    mask = np.asarray(Image.open(out / finding["mask"]))
    assert mask.shape == (20, 30)
    assert np.array_equal(mask == finding["value"], np.asarray(Image.open(spot_png)) > 128)
    drawn = np.asarray(Image.open(out / "overlay.png"))
    assert drawn.shape == (20, 30, 3)
    assert len({tuple(p) for p in drawn[2:6, 3:8].reshape(-1, 3)}) == 2  # outline and fill
    assert (drawn[10:, 10:] == 40).all()


def test_follow_ups_hear_the_earlier_turns(bright: BrightSpots, spot_png: Path, tmp_path: Path) -> None:
    follow = ["--follow-up", "And a unicorn?", "--follow-up", "Again?"]
    out = tmp_path / "o"
    result = runner.invoke(cli.app, ["ask", str(spot_png), "What is bright?", *follow, "--out", str(out)])
    assert result.exit_code == 0, result.output
    first = ("What is bright?", "The bright spot is outlined.")
    second = ("And a unicorn?", "There is no unicorn in this image.")
    assert bright.asked == [
        ("What is bright?", ()),
        ("And a unicorn?", (first,)),
        ("Again?", (first, second)),
    ]
    assert "Nothing was outlined." in result.output
    assert json.loads((out / "follow-up-1" / "answer.json").read_text())["findings"] == []
    assert (out / "follow-up-2" / "mask-1-bright-spot.png").is_file()


def test_a_volume_gives_nifti_masks_and_shows_its_fullest_slice(bright: BrightSpots, tmp_path: Path) -> None:
    voxels = np.zeros((8, 9, 5), np.float32)
    voxels[2, 3, 1] = voxels[2:5, 3:5, 3] = 200
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    path, out = tmp_path / "volume.nii.gz", tmp_path / "out"
    nib.save(nib.Nifti1Image(voxels, affine), path)
    result = runner.invoke(cli.app, ["ask", str(path), "Bright?", "--slices", "1-3", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert bright.slices == range(1, 4)
    answer = json.loads((out / "answer.json").read_text())
    (finding,) = answer["findings"]
    assert answer["overlay_slice"] == 3
    assert finding["slices"] == [1, 3]
    assert finding["volume_ml"] == pytest.approx(7 * 0.02)
    mask = nib.load(out / finding["mask"])
    assert np.allclose(mask.affine, affine)
    assert np.array_equal(np.asarray(mask.dataobj) == finding["value"], voxels > 128)
    assert "0.14 ml, slices 1 to 3" in result.output


def test_slices_of_a_picture_are_refused(bright: BrightSpots, spot_png: Path) -> None:
    result = runner.invoke(cli.app, ["ask", str(spot_png), "What?", "--slices", "3"])
    assert isinstance(result.exception, MedSegRError)


@pytest.mark.parametrize(("text", "chosen"), [("all", None), ("12", range(12, 13)), ("10-20", range(10, 21))])
def test_slices_in_words(text: str, chosen: range | None) -> None:
    assert parse_slices(text) == chosen


@pytest.mark.parametrize("text", ["", "x", "-3", "3-", "20-10", "1-2-3"])
def test_slices_that_mean_nothing(text: str) -> None:
    with pytest.raises(MedSegRError):
        parse_slices(text)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"area_mm2": 12.345}, "12.3 mm²"),
        ({"area_mm2": 1250.0}, "12.5 cm²"),
        ({"volume_ml": 1520.4, "slices": [4, 4]}, "1520 ml, slice 4"),
        ({"volume_ml": 0.0, "slices": []}, "0 ml"),
        ({"area_px": 7}, "7 pixels (the image has no spacing)"),
    ],
)
def test_sizes_in_words(size: dict[str, object], words: str) -> None:
    assert size_in_words(size) == words


def test_an_error_of_the_users_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["medsegr", "ask", str(tmp_path / "missing.png"), "What?"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    output = capsys.readouterr()
    assert output.err.startswith("medsegr: ")
    assert "missing.png" in output.err
    assert output.err.count("\n") == 1


def test_help_is_quick_because_nothing_heavy_is_imported(repository: Path) -> None:
    script = (
        "import sys, medsegr.cli; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy')))"
    )
    began = time.perf_counter()
    assert subprocess.run([sys.executable, "-c", script], cwd=repository, check=False).returncode == 0
    assert time.perf_counter() - began < 10


def test_version() -> None:
    from medsegr import __version__

    assert runner.invoke(cli.app, ["--version"]).output.strip() == __version__
