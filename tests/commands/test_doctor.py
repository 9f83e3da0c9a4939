"""Every check of `medsegr doctor` on values that are right and on values that are wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from typer.testing import CliRunner

from medsegr import cli
from medsegr.commands import checks
from medsegr.commands.checks import Check, Status
from medsegr.errors import CheckpointError, QuestionError
from medsegr.golden import read_golden, write_golden
from medsegr.model.checkpoint import FORMAT
from medsegr.model.presets import PRESETS

from .conftest import BrightSpots

PINS = [Requirement("torch==2.15.0"), Requirement("pydicom==2.4.5"), Requirement("rich==15.0.0")]


def listed(versions: dict[str, str]) -> dict[str, Check]:
    return {check.name: check for check in checks.packages(PINS, versions.get)}


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 12), "ok"), ((3, 13), "fail")]
)
def test_python_versions(version: tuple[int, int], status: str) -> None:
    assert checks.python_version(version).status.value == status


def test_packages_at_their_pins_take_one_line() -> None:
    found = listed(
        {"torch": "2.15.0+cpu", "pydicom": "2.4.5", "rich": "15.0.0"}
    )  # a CPU build of the same version fits
    assert list(found) == ["packages"]
    assert found["packages"].detail == "3 of 3 at their pins."


def test_a_package_off_its_pin_warns_but_pydicom_3_fails() -> None:
    found = listed({"torch": "2.15.0", "pydicom": "3.0.1", "rich": "14.0.0"})
    assert found["rich"].status is Status.WARN
    assert found["pydicom"].status is Status.FAIL
    assert "server would not start" in found["pydicom"].detail
    assert found["packages"].detail == "1 of 3 at their pins."


def test_a_missing_package_fails_and_says_how_to_get_it() -> None:
    check = listed({"pydicom": "2.4.5", "rich": "15.0.0"})["torch"]
    assert check.status is Status.FAIL
    assert "pip install 'torch==2.15.0'" in check.detail


def test_without_an_installed_distribution_the_pins_are_unknown() -> None:
    assert checks.pins("no-such-distribution-anywhere") is None
    (check,) = checks.packages(None, lambda _: None)
    assert check.status is Status.WARN


def test_pins_leave_out_the_development_extra() -> None:
    names = {pin.name for pin in checks.pins("sentence-transformers") or []}
    assert "torch" in names
    assert "faiss-cpu" not in names


def test_torchvision_of_another_build_fails() -> None:
    def broken(_: str) -> object:
        raise RuntimeError("operator torchvision::nms does not exist\nand a long trace")

    check = checks.torch_pair(broken)
    assert check.status is Status.FAIL
    assert "torchvision::nms does not exist)" in check.detail
    assert checks.torch_pair(lambda _: object()).status is Status.OK


def test_memory_and_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.memory(8 * checks.GIB).status is Status.OK
    assert checks.memory(checks.GIB).status is Status.WARN
    monkeypatch.setattr(checks, "DISK_GIB", 1e9)
    assert checks.disk(tmp_path).status is Status.WARN


def checkpoint_files(folder: Path) -> dict[str, str]:
    """Two weight files in `folder` and their hashes."""
    recorded = {}
    for name in ("context/model.safetensors", "grounding.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(name.encode())
        recorded[name] = hashlib.sha256(name.encode()).hexdigest()
    return recorded


def test_hashes_of_the_weights(tmp_path: Path) -> None:
    recorded = checkpoint_files(tmp_path)
    assert checks.hashes(tmp_path, recorded).status is Status.OK
    (tmp_path / "grounding.safetensors").write_bytes(b"changed")
    check = checks.hashes(tmp_path, recorded)
    assert check.status is Status.FAIL
    assert "grounding.safetensors" in check.detail
    assert "context" not in check.detail
    del recorded["context/model.safetensors"]
    assert "records no SHA-256 of context/model.safetensors" in checks.hashes(tmp_path, recorded).detail


def whole_checkpoint(folder: Path, **changes: object) -> None:
    """Everything that `weights` looks at, with weight files of a few bytes."""
    recorded = checkpoint_files(folder)
    for name in ("context/config.json", "context/tokenizer.json", "context/reasons.json", "card.md"):
        (folder / name).write_text("{}")
    config = {"format": FORMAT, "model": {**PRESETS["tiny"].to_json(), **changes}, "targets": []}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "meta.json").write_text(json.dumps({"sha256": recorded}))


def test_whole_weights_and_their_sentence_encoder_pass(tmp_path: Path) -> None:
    whole_checkpoint(tmp_path)
    weights, encoder = checks.weights(str(tmp_path))
    assert (weights.status, encoder.status) == (Status.OK, Status.OK)
    assert "2 files" in weights.detail
    assert "53aa51172d14" in encoder.detail


def test_another_sentence_encoder_than_the_checkpoint_was_trained_with_fails(tmp_path: Path) -> None:
    whole_checkpoint(tmp_path, sentence_encoder_sha256="0" * 64)
    assert [check.status for check in checks.weights(str(tmp_path))] == [Status.OK, Status.FAIL]


def test_without_a_sentence_encoder_there_is_nothing_to_check(tmp_path: Path) -> None:
    whole_checkpoint(tmp_path, question_encoder="scratch")
    assert [check.name for check in checks.weights(str(tmp_path))] == ["weights"]


def test_a_damaged_meta_json_is_a_failed_row(tmp_path: Path) -> None:
    whole_checkpoint(tmp_path)
    (tmp_path / "meta.json").write_text('{"sha256": 3}')
    (check,) = checks.weights(str(tmp_path))
    assert check.status is Status.FAIL
    assert "meta.json" in check.detail


def test_weights_that_are_missing_are_one_failed_row(tmp_path: Path) -> None:
    (check,) = checks.weights(str(tmp_path / "nowhere"))
    assert check.status is Status.FAIL
    (check,) = checks.weights(str(tmp_path))
    assert "config.json" in check.detail


def test_the_golden_question_passes_and_then_notices_a_change(bright: BrightSpots, tmp_path: Path) -> None:
    pixels = np.full((40, 40), 30, np.uint8)
    pixels[5:25, 5:25] = 220
    golden = write_golden(tmp_path, bright, pixels, "What is bright?")  # type: ignore[arg-type]
    assert golden.label == "bright spot"
    assert int(golden.mask.sum()) == 400
    check = checks.golden_question(str(tmp_path), "cpu")
    assert (check.status, check.detail) == (Status.OK, "bright spot: Dice 1.000 with the stored mask.")
    pixels[5:25, 5:13] = 30  # 240 of 400 pixels are left: Dice 2 * 240 / 640 = 0.75
    Image.fromarray(pixels).save(tmp_path / "golden-image.png")
    check = checks.golden_question(str(tmp_path), "cpu")
    assert check.status is Status.FAIL
    assert "Dice 0.750" in check.detail


def test_the_golden_command_keeps_a_slice_of_the_phantom(bright: BrightSpots, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["golden", str(tmp_path), "--organ", "spine"])
    assert result.exit_code == 0, result.output
    assert "Kept the bright spot of slice" in result.output
    golden = read_golden(tmp_path)
    assert golden is not None
    assert golden.image.pixels.shape == (160, 160, 3)
    with pytest.raises(QuestionError, match="no 'tail'"):
        CliRunner().invoke(cli.app, ["golden", str(tmp_path), "--organ", "tail"], catch_exceptions=False)


def test_a_golden_question_without_a_finding_is_not_kept(bright: BrightSpots, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        write_golden(tmp_path, bright, np.zeros((8, 8), np.uint8), "A unicorn?")  # type: ignore[arg-type]
    assert read_golden(tmp_path) is None
    assert checks.golden_question(str(tmp_path), "cpu").status is Status.WARN


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"image": "a.png", "mask": "b.png"}'])
def test_a_damaged_golden_question_fails_in_one_sentence(
    bright: BrightSpots, tmp_path: Path, text: str
) -> None:
    (tmp_path / "golden.json").write_text(text)
    check = checks.golden_question(str(tmp_path), "cpu")
    assert check.status is Status.FAIL
    assert "copy the checkpoint anew" in check.detail


def test_a_golden_mask_of_another_size_is_refused(bright: BrightSpots, tmp_path: Path) -> None:
    pixels = np.full((8, 8), 200, np.uint8)
    write_golden(tmp_path, bright, pixels, "What is bright?")  # type: ignore[arg-type]
    Image.fromarray(np.ones((9, 8), np.uint8)).save(tmp_path / "golden.png")
    with pytest.raises(CheckpointError, match="another size"):
        read_golden(tmp_path)


@pytest.mark.parametrize(("statuses", "code"), [(["ok", "warn"], 0), (["ok", "fail", "ok"], 1)])
def test_exit_code(statuses: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(checkpoint: str, device: str) -> Iterator[Check]:
        for status in statuses:
            yield Check("thing", Status(status), "all is as found")

    every: Callable[[str, str], Iterator[Check]] = some
    monkeypatch.setattr(checks, "every_check", every)
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == code
    assert result.output.count("all is as found") == len(statuses)


def test_every_check_runs_and_none_raises(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({"sha256": 3}))
    names = [check.name for check in checks.every_check(str(tmp_path), "cpu")]
    assert names[0] == "Python"
    assert {"GPU", "disk", "memory", "weights"} <= set(names)
    assert names[-1] == "golden question"
