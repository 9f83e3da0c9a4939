"""Base weights are found, never fetched; what is missing is told with the way to get it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from medsegr.errors import CheckpointError
from medsegr.model.large.adapter import is_large, large_weights, load_large, new_large
from medsegr.model.large.loading import WEIGHTS_VARIABLE, find_base, find_sam, read_sam
from medsegr.model.large.presets import LARGE_PRESETS, SAMS, LargeConfig
from tests.large_models import tiny_large


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.parametrize("name", LARGE_PRESETS)
def test_a_preset_without_adapter_refuses_and_names_the_command(name: str) -> None:
    assert is_large(name)
    with pytest.raises(CheckpointError, match=f"medsegr pretrain QA.jsonl --preset {name} .*--out DIR"):
        load_large(name)


def test_missing_weights_are_told_with_the_way_to_get_them(empty_cache: Path) -> None:
    with pytest.raises(CheckpointError, match="`hf download llava-hf/llava-1.5-7b-hf`"):
        find_base("llava-hf/llava-1.5-7b-hf")
    with pytest.raises(CheckpointError, match="get it from https://dl.fbaipublicfiles.com"):
        find_sam(SAMS["vit_h"])
    rows = list(large_weights("llava-med-7b"))
    assert [name for name, _, _ in rows] == ["adapter", "base model", "SAM"]
    assert not any(there for _, there, _ in rows)


def test_weights_are_found_in_the_named_folder(empty_cache: Path) -> None:
    config = tiny_large(empty_cache)
    named = replace(config, base="somebody/llava-med-7b", sam=replace(config.sam, file="sam_tiny"))
    assert find_base(named.base) == empty_cache / "llava-med-7b"
    assert find_sam(named.sam) == empty_cache / "sam_tiny.pth"
    (empty_cache / "llava-med-7b" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors missing"):
        new_large(named)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(str(tmp_path / "ran")).touch, ())  # type: ignore[return-value]

    (tmp_path / "sam.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="no SAM state dict"):
        read_sam(tmp_path / "sam.pth")
    assert not (tmp_path / "ran").exists()


def test_config_goes_to_json_and_back() -> None:
    for config in LARGE_PRESETS.values():
        assert LargeConfig.from_json(config.to_json()) == config
    with pytest.raises(CheckpointError, match="does not describe a large model"):
        LargeConfig.from_json({**config.to_json(), "novelty": 1})
