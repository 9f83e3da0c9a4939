"""Checkpoint directories: written whole or not at all, read with a sentence for everything that can be wrong.

config.json              format version, preset, ModelConfig (shape of the weights, targets, calibration)
context/                 language model and tokenizer in Hugging Face format (a LoRA in context/adapter, PEFT format)
grounding.safetensors    encoder, question projection, prompt encoder and mask decoder
meta.json                version, data, metrics, licence, SHA-256 of every weight file
card.md                  the model card
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from medsegr.errors import CheckpointError
from medsegr.model.medsegr import MedSegR
from medsegr.model.presets import ModelConfig
from medsegr.model.question import file_sha256
from medsegr.model.tokens import check_tokenizer

FORMAT = 1
CONTEXT = "context"
GROUNDING = "grounding.safetensors"
REQUIRED = (
    "config.json",
    f"{CONTEXT}/config.json",
    f"{CONTEXT}/model.safetensors",
    f"{CONTEXT}/tokenizer.json",
    GROUNDING,
    "meta.json",
    "card.md",
)
EMBEDDED = Path(__file__).resolve().parent.parent / "weights" / "embedded"
_LM_PREFIX = "context.model."


@dataclass(frozen=True)
class Checkpoint:
    """A model in eval mode with what its directory says about it."""

    model: MedSegR
    meta: dict[str, Any]
    directory: Path

    @property
    def version(self) -> str:
        """The version string of `meta.json`."""
        return str(self.meta["version"])


def resolve(name_or_dir: str | Path) -> Path:
    """Directory of a preset's shipped checkpoint or the given directory; raises `CheckpointError` when there is none."""
    if str(name_or_dir) == "embedded":
        name_or_dir = EMBEDDED
    directory = Path(name_or_dir)
    if not directory.is_dir():
        raise CheckpointError(
            f"No checkpoint directory at {directory}: expected a folder that `medsegr pretrain` wrote, or the name 'embedded'."
        )
    return directory


def save_checkpoint(
    model: MedSegR, directory: Path, meta: dict[str, Any], card: str, half: bool = True
) -> None:
    """Write `directory` at once (a new folder renamed over the old one). `half` stores float16, which is loaded as float32."""
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        dtype = torch.float16 if half else torch.float32
        rest = {
            name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().cpu()
            for name, tensor in model.state_dict().items()
            if not name.startswith(_LM_PREFIX)
        }
        save_file(rest, work / GROUNDING)
        lm_dtype = next(model.context.model.parameters()).dtype
        model.context.model.to(dtype)
        try:
            model.context.save_pretrained(work / CONTEXT)
        finally:
            model.context.model.to(lm_dtype)
        config = {"format": FORMAT, "model": model.config.to_json(), "targets": list(model.config.targets)}
        _write_json(work / "config.json", config)
        hashes = {str(p.relative_to(work)): file_sha256(p) for p in sorted(work.rglob("*.safetensors"))}
        _write_json(work / "meta.json", {**meta, "sha256": hashes})
        (work / "card.md").write_text(card, encoding="utf-8")
        work.chmod(0o755)
        old = directory.with_name(f".{directory.name}-old")
        shutil.rmtree(old, ignore_errors=True)
        if directory.exists():
            for kept in directory.iterdir():  # files beside the weights (licence, golden question) stay
                if not (work / kept.name).exists():
                    (shutil.copytree if kept.is_dir() else shutil.copy2)(kept, work / kept.name)
            directory.rename(old)
        work.replace(directory)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path.name} of the checkpoint is not valid JSON ({error}); copy the checkpoint anew."
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(
            f"{path.name} of the checkpoint must hold a JSON object, found {type(data).__name__}."
        )
    return data


def read_config(directory: Path) -> ModelConfig:
    """`config.json` without any weights; raises `CheckpointError`."""
    directory = resolve(directory)
    missing = [name for name in REQUIRED if not (directory / name).is_file()]
    if missing:
        raise CheckpointError(f"The checkpoint {directory} is incomplete: {', '.join(missing)} missing.")
    config = _read_json(directory / "config.json")
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"The checkpoint {directory} has format {config.get('format')!r}; this version of medsegr reads format {FORMAT}."
        )
    if not isinstance(config.get("model"), dict):
        raise CheckpointError("config.json of the checkpoint lacks the object 'model'.")
    return ModelConfig.from_json(config["model"])


def read_targets(directory: Path | str = EMBEDDED) -> tuple[str, ...]:
    """Names of the known structures in their fixed order; reads `config.json` only."""
    return read_config(Path(directory)).targets


def _read_weights(path: Path, expected: str | None) -> dict[str, torch.Tensor]:
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path.name} is truncated or not a safetensors file ({error}); copy the checkpoint anew."
        ) from error
    if expected and file_sha256(path) != expected:
        raise CheckpointError(
            f"{path.name} does not have the SHA-256 that meta.json records; copy the checkpoint anew."
        )
    return weights


def load_checkpoint(name_or_dir: str | Path, device: str = "cpu") -> Checkpoint:
    """Read and check a checkpoint; the model is float32, in eval mode, on `device`. Raises `CheckpointError`."""
    directory = resolve(name_or_dir)
    config = read_config(directory)
    meta = _read_json(directory / "meta.json")
    for key in ("version", "licence"):
        if key not in meta:
            raise CheckpointError(f"meta.json of the checkpoint lacks '{key}'.")
    hashes = meta.get("sha256", {})
    if not isinstance(hashes, dict):
        raise CheckpointError("sha256 in meta.json of the checkpoint must map file names to hashes.")
    rest = _read_weights(directory / GROUNDING, hashes.get(GROUNDING))
    language = _read_weights(
        directory / CONTEXT / "model.safetensors", hashes.get(f"{CONTEXT}/model.safetensors")
    )
    tokenizer = check_tokenizer(
        PreTrainedTokenizerFast.from_pretrained(directory / CONTEXT, local_files_only=True)
    )
    model = MedSegR(config, tokenizer)
    problem = model.context.llama.load_state_dict({k: v.float() for k, v in language.items()}, strict=False)
    missing = [key for key in problem.missing_keys if key != "lm_head.weight"]  # tied to the embeddings
    rest_problem = model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in rest.items()}, strict=False
    )
    missing += [key for key in rest_problem.missing_keys if not key.startswith(_LM_PREFIX)]
    unexpected = [*problem.unexpected_keys, *rest_problem.unexpected_keys]
    if missing or unexpected:
        named = (missing or unexpected)[0]
        raise CheckpointError(
            f"The weights do not fit config.json: {len(missing)} tensors missing, {len(unexpected)} unknown, such as {named}."
        )
    if (directory / CONTEXT / "adapter").is_dir():
        from peft import PeftModel

        model.context.model = PeftModel.from_pretrained(
            model.context.llama, directory / CONTEXT / "adapter"
        ).float()
    return Checkpoint(model.to(device).eval(), meta, directory)


def with_calibration(config: ModelConfig, slope: float, offset: float) -> ModelConfig:
    """The same configuration with another confidence calibration."""
    return replace(config, calibration=(slope, offset))
