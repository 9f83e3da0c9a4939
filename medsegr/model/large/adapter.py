"""Adapter directories: what training a large preset writes, and what is loaded on top of its base weights.

config.json              format version and LargeConfig: base, SAM, dialogue, LoRA, targets, calibration
lora/                    the LoRA in PEFT format
grounding.safetensors    markup rows, projection and mask decoder
meta.json                version, data, licence, SHA-256 of these files and of the SAM file, sizes of the base's files
card.md                  the model card
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medsegr.errors import CheckpointError, MedSegRError
from medsegr.model.large.loading import base_sizes, find_base, find_sam, load_base, read_sam
from medsegr.model.large.model import LargeMedSegR
from medsegr.model.large.presets import FORMAT, LARGE_PRESETS, LargeConfig, large_preset, no_adapter
from medsegr.model.question import file_sha256

LORA, LORA_WEIGHTS, GROUNDING = "lora", "lora/adapter_model.safetensors", "grounding.safetensors"
REQUIRED = ("lora/adapter_config.json", LORA_WEIGHTS, GROUNDING, "meta.json")
TRAINED = ("project.", "sam.mask_decoder.")


@dataclass(frozen=True)
class LargeCheckpoint:
    """A large model in eval mode with what its adapter directory says about it."""

    model: LargeMedSegR
    meta: dict[str, Any]
    directory: Path

    @property
    def version(self) -> str:
        """The version string of `meta.json`."""
        return str(self.meta["version"])


def is_large(name_or_dir: str | Path) -> bool:
    """Whether this names a large preset or an adapter directory of one."""
    if str(name_or_dir) in LARGE_PRESETS:
        return True
    try:
        data = json.loads((Path(name_or_dir) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


def new_large(config: LargeConfig, device: str = "cpu", dtype: torch.dtype | None = None) -> LargeMedSegR:
    """Base weights from this machine with fresh grounding on top and no LoRA yet; raises `CheckpointError` for what is missing.

    The base and SAM's image encoder are in `dtype` (default: bfloat16 on a GPU, else float32), what is trained in float32.
    """
    dtype = dtype or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
    sam, directory = find_sam(config.sam), find_base(config.base)
    base, processor = load_base(directory, dtype, device)
    model = LargeMedSegR(config, base, processor)
    try:
        problem = model.grounding.sam.load_state_dict(read_sam(sam), strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{sam} does not hold a SAM of the shape that config.json asks for.") from error
    missing = [k for k in problem.missing_keys if "presence_head" not in k and "quality_head" not in k]
    if missing or problem.unexpected_keys:
        odd = (missing or problem.unexpected_keys)[0]
        raise CheckpointError(f"{sam} is no SAM state dict as `segment_anything` reads it: see {odd}.")
    model.grounding.sam.image_encoder.to(dtype)
    return model.to(device).eval()


def save_adapter(model: LargeMedSegR, directory: Path, meta: dict[str, Any], card: str) -> None:
    """Write `directory` (a new folder renamed over the old one), which loads wherever the same base weights lie."""
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        save_file(_trained(model), work / GROUNDING)
        model.context.save_lora(work / LORA)
        config = {
            "format": FORMAT,
            "model": model.config.to_json(),
            "targets": list(model.config.targets),
        }
        meta = {
            **meta,
            "sha256": {name: file_sha256(work / name) for name in (GROUNDING, LORA_WEIGHTS)},
            "base": base_sizes(find_base(model.config.base)),
            "sam": file_sha256(find_sam(model.config.sam)),
        }
        for name, data in (("config.json", config), ("meta.json", meta)):
            (work / name).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        (work / "card.md").write_text(card, encoding="utf-8")
        work.chmod(0o755)
        for file in work.rglob("*.safetensors"):  # a server may be another user
            file.chmod(0o644)
        old = directory.with_name(f".{directory.name}-old")
        shutil.rmtree(old, ignore_errors=True)
        if directory.exists():
            directory.rename(old)
        work.replace(directory)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _trained(model: LargeMedSegR) -> dict[str, Tensor]:
    state = {
        name: tensor for name, tensor in model.grounding.state_dict().items() if name.startswith(TRAINED)
    }
    state |= {"tokens.input": model.context.table.new, "tokens.output": model.context.head.new}
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()}


def read_large_config(name_or_dir: str | Path) -> LargeConfig:
    """The configuration of an adapter directory; raises `CheckpointError`, for a bare preset saying how to train one."""
    if str(name_or_dir) in LARGE_PRESETS:
        raise no_adapter(str(name_or_dir))
    directory = Path(name_or_dir)
    try:
        data = json.loads((directory / "config.json").read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"config.json in {directory} is missing or damaged; copy the adapter anew."
        ) from error
    config = LargeConfig.from_json(data)
    missing = [name for name in REQUIRED if not (directory / name).is_file()]
    if LORA_WEIGHTS in missing or GROUNDING in missing:
        raise no_adapter(config.preset)
    if missing:
        raise CheckpointError(f"The adapter {directory} is incomplete: {', '.join(missing)} missing.")
    return config


def load_large(
    name_or_dir: str | Path, device: str = "cpu", dtype: torch.dtype | None = None, merge: bool = True
) -> LargeCheckpoint:
    """Base weights and adapter; with `merge` the LoRA becomes part of the base, else it can be trained on. Raises
    `CheckpointError`."""
    directory = Path(name_or_dir)
    config = read_large_config(name_or_dir)
    try:
        meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
        hashes, sizes, sam = dict(meta["sha256"]), dict(meta["base"]), str(meta["sam"])
        _ = meta["version"], meta["licence"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"meta.json of the adapter {directory} is damaged ({error}); copy it anew."
        ) from error
    for name, digest in hashes.items():
        if file_sha256(directory / name) != digest:
            raise CheckpointError(
                f"{name} does not have the SHA-256 that meta.json records; copy the adapter anew."
            )
    if base_sizes(find_base(config.base)) != sizes:
        raise CheckpointError(
            f"The base model {config.base} here is another than the adapter was trained on; expected weight files of "
            f"{sum(sizes.values())} bytes."
        )
    if file_sha256(find_sam(config.sam)) != sam:
        raise CheckpointError(
            f"{find_sam(config.sam)} is another SAM than the adapter was trained on; expected SHA-256 {sam[:12]}…."
        )
    model = new_large(config, device, dtype)
    _load_trained(model, directory)
    try:
        model.context.load_lora(directory / LORA, merge)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"The LoRA of {directory} does not fit its base model; copy the adapter anew."
        ) from error
    return LargeCheckpoint(model.eval(), meta, directory)


@torch.no_grad()
def _load_trained(model: LargeMedSegR, directory: Path) -> None:
    try:
        state = load_file(directory / GROUNDING)
        model.context.table.new.copy_(state.pop("tokens.input"))
        model.context.head.new.copy_(state.pop("tokens.output"))
        problem = model.grounding.load_state_dict(state, strict=False)
    except (SafetensorError, KeyError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{GROUNDING} does not fit config.json; copy the adapter anew.") from error
    missing = [name for name in problem.missing_keys if name.startswith(TRAINED)]
    if missing or problem.unexpected_keys:
        raise CheckpointError(
            f"{GROUNDING} does not fit config.json: see {missing or problem.unexpected_keys}."
        )


def large_weights(name_or_dir: str | Path) -> Iterator[tuple[str, bool, str]]:
    """What `medsegr doctor` says of a preset or an adapter directory: name, whether it is there, a sentence."""
    try:
        config: LargeConfig | None = read_large_config(name_or_dir)
        yield "adapter", True, f"In {name_or_dir}."
    except MedSegRError as error:
        yield "adapter", False, str(error)
        config = large_preset(str(name_or_dir)) if str(name_or_dir) in LARGE_PRESETS else None
    if config is None:
        return
    needed: dict[str, Callable[[], Path]] = {
        "base model": partial(find_base, config.base),
        "SAM": partial(find_sam, config.sam),
    }
    for what, find in needed.items():
        try:
            yield what, True, f"In {find()}."
        except MedSegRError as error:
            yield what, False, str(error)
