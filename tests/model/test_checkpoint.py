"""Checkpoints: a round trip keeps every weight; each way of being broken gives one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medsegr.errors import CheckpointError
from medsegr.model.checkpoint import load_checkpoint, read_targets, save_checkpoint
from medsegr.model.medsegr import MedSegR

META = {"version": "tiny-1", "licence": "CC0"}


@pytest.fixture
def saved(tiny: MedSegR, tmp_path: Path) -> Path:
    save_checkpoint(tiny, tmp_path / "ck", META, "# card", half=False)
    return tmp_path / "ck"


def test_round_trip_keeps_weights_and_answers(tiny: MedSegR, saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert loaded.version == "tiny-1"
    for (name, a), (_, b) in zip(tiny.state_dict().items(), loaded.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert read_targets(saved) == ("liver", "left kidney")


def test_half_precision_is_read_back_as_float32(tiny: MedSegR, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    save_checkpoint(tiny, tmp_path / "half", META, "# card")
    model = load_checkpoint(tmp_path / "half").model
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in (tmp_path / "half").rglob("*.safetensors"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model.encoder.embed.weight, tiny.encoder.embed.weight, atol=1e-3, rtol=1e-3)
    assert all(torch.equal(before[name], now) for name, now in tiny.state_dict().items()), (
        "saving changes nothing"
    )


def test_lora_round_trip(tiny: MedSegR, tmp_path: Path) -> None:
    tiny.context.add_lora(rank=2, alpha=4)
    for name, parameter in tiny.context.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_checkpoint(tiny, tmp_path / "lora", META, "# card", half=False)
    loaded = load_checkpoint(tmp_path / "lora").model
    image = torch.randn(1, 4, tiny.config.context_dim)
    ours, theirs = tiny.eval().context.prefix(image), loaded.context.prefix(image)
    a = tiny.context.generate(ours, [], "Where is the liver?", None, max_new_tokens=6)
    b = loaded.context.generate(theirs, [], "Where is the liver?", None, max_new_tokens=6)
    assert a is not None and b is not None and a.text == b.text and abs(a.score - b.score) < 1e-5


def test_saving_over_an_old_checkpoint_keeps_files_beside_it(tiny: MedSegR, saved: Path) -> None:
    (saved / "LICENSE").write_text("kept")
    save_checkpoint(tiny, saved, {**META, "version": "tiny-2"}, "# card", half=False)
    assert load_checkpoint(saved).version == "tiny-2"
    assert (saved / "LICENSE").read_text() == "kept"
    assert not [p for p in saved.parent.iterdir() if p.name.startswith(".")]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _set(path: Path, key: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("grounding.safetensors", lambda p: p.unlink(), "incomplete"),
        ("grounding.safetensors", _truncate, "truncated"),
        ("context/model.safetensors", lambda p: p.write_bytes(b"PK\x03\x04pickle"), "not a safetensors"),
        ("context/tokenizer.json", _truncate, "tokenizer of the checkpoint cannot be read"),
        ("config.json", lambda p: p.write_text("{"), "not valid JSON"),
        ("config.json", lambda p: p.write_text("[]"), "JSON object"),
        ("config.json", lambda p: _set(p, "format", 99), "format 99"),
        ("config.json", lambda p: _set(p, "model", {"surprise": 1}), "surprise"),
        ("meta.json", lambda p: p.write_text("{}"), "version"),
        ("meta.json", lambda p: _set(p, "sha256", 3), "map file names"),
        ("meta.json", lambda p: _set(p, "sha256", {"grounding.safetensors": "00"}), "SHA-256"),
    ],
)
def test_each_damage_is_named(saved: Path, name: str, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    damage(saved / name)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_refused(saved: Path, tiny: MedSegR) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"]["encoder_blocks"] = [2, 1, 1, 1]
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("key", "value"), [("context_dim", 64), ("context_dim", "wide"), ("context_heads", 0)]
)
def test_a_config_that_does_not_fit_is_one_sentence(saved: Path, key: str, value: object) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"][key] = value
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="config.json") as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("adapter_model.safetensors", lambda p: p.unlink(), "truncated"),
        ("adapter_model.safetensors", _truncate, "truncated"),
        ("adapter_config.json", lambda p: p.write_text("{"), "not valid JSON"),
    ],
)
def test_a_damaged_lora_is_named(tiny: MedSegR, tmp_path: Path, name: str, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    tiny.context.add_lora(rank=2, alpha=4)
    save_checkpoint(tiny, tmp_path / "lora", META, "# card")
    damage(tmp_path / "lora" / "context" / "adapter" / name)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_checkpoint(tmp_path / "lora")
    assert "\n" not in str(caught.value)


def test_a_save_that_dies_between_its_renames_loses_nothing(
    saved: Path, tiny: MedSegR, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", die)
        save_checkpoint(tiny, saved, {**META, "version": "tiny-2"}, "# card")
    assert load_checkpoint(saved).version == "tiny-1"
    assert [p.name for p in saved.parent.iterdir()] == ["ck"]
    saved.rename(saved.with_name(".ck-old"))  # what a power cut leaves
    save_checkpoint(tiny, saved, {**META, "version": "tiny-3"}, "# card")
    assert load_checkpoint(saved).version == "tiny-3" and [p.name for p in saved.parent.iterdir()] == ["ck"]


def test_no_directory() -> None:
    with pytest.raises(CheckpointError, match="No checkpoint directory"):
        load_checkpoint("nowhere")
