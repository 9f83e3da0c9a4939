"""Checkpoint directories: written whole or not at all, read with a sentence for everything that can be wrong.

config.json              format version, preset, ModelConfig (shape of the weights, targets, calibration)
context/                 language model and tokenizer in Hugging Face format (a LoRA in context/adapter, PEFT format), and
                         reasons.json: what may be said of each structure
grounding.safetensors    encoder, question projection, prompt encoder and mask decoder
meta.json                version, data, metrics, licence, SHA-256 of every weight file
card.md                  the model card
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from medsegr.errors import CheckpointError
from medsegr.model.context import ADAPTER, REASONS
from medsegr.model.large.presets import LARGE_PRESETS, no_adapter
from medsegr.model.medsegr import MedSegR
from medsegr.model.presets import ModelConfig
from medsegr.model.question import file_sha256
from medsegr.model.tokens import check_tokenizer

FORMAT = 2
CONTEXT = "context"
GROUNDING = "grounding.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
REQUIRED = (
    "config.json",
    f"{CONTEXT}/config.json",
    f"{CONTEXT}/model.safetensors",
    f"{CONTEXT}/tokenizer.json",
    f"{CONTEXT}/{REASONS}",
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
    if str(name_or_dir) in LARGE_PRESETS:
        raise no_adapter(str(name_or_dir))
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
    old = directory.with_name(f".{directory.name}-old")
    if old.exists() and not directory.exists():  # an earlier save died between its two renames
        old.rename(directory)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        dtype = torch.float16 if half else torch.float32
        rest = {
            name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().cpu()
            for name, tensor in model.state_dict().items()
            if not name.startswith(_LM_PREFIX)
        }
        save_file(rest, work / GROUNDING)
        model.context.save_pretrained(work / CONTEXT, dtype)
        config = {"format": FORMAT, "model": model.config.to_json(), "targets": list(model.config.targets)}
        _write_json(work / "config.json", config)
        hashes = {str(p.relative_to(work)): file_sha256(p) for p in sorted(work.rglob("*.safetensors"))}
        _write_json(work / "meta.json", {**meta, "sha256": hashes})
        (work / "card.md").write_text(card, encoding="utf-8")
        work.chmod(0o755)
        for weights in work.rglob(
            "*.safetensors"
        ):  # are written for their owner alone; a server may be another user
            weights.chmod(0o644)
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
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
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


def read_meta(directory: Path) -> dict[str, Any]:
    """`meta.json` with at least a version, a licence and a map of hashes; raises `CheckpointError`."""
    meta = _read_json(directory / "meta.json")
    for key in ("version", "licence"):
        if key not in meta:
            raise CheckpointError(f"meta.json of the checkpoint lacks '{key}'.")
    if not isinstance(meta.setdefault("sha256", {}), dict):
        raise CheckpointError("sha256 in meta.json of the checkpoint must map file names to hashes.")
    return meta


def load_checkpoint(name_or_dir: str | Path, device: str = "cpu") -> Checkpoint:
    """Read and check a checkpoint; the model is float32, in eval mode, on `device`. Raises `CheckpointError`."""
    directory = resolve(name_or_dir)
    config = read_config(directory)
    meta = read_meta(directory)
    hashes = meta["sha256"]
    rest = _read_weights(directory / GROUNDING, hashes.get(GROUNDING))
    language = _read_weights(
        directory / CONTEXT / "model.safetensors", hashes.get(f"{CONTEXT}/model.safetensors")
    )
    model = _build(directory, config)
    try:
        problem = model.context.llama.load_state_dict(
            {k: v.float() for k, v in language.items()}, strict=False
        )
        rest_problem = model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in rest.items()}, strict=False
        )
    except RuntimeError as error:  # tensors of another shape
        raise CheckpointError(
            f"The weights do not fit config.json: {_last_line(error)}; copy the checkpoint anew."
        ) from error
    missing = [key for key in problem.missing_keys if key != "lm_head.weight"]  # tied to the embeddings
    missing += [key for key in rest_problem.missing_keys if not key.startswith(_LM_PREFIX)]
    unexpected = [*problem.unexpected_keys, *rest_problem.unexpected_keys]
    if missing or unexpected:
        named = (missing or unexpected)[0]
        raise CheckpointError(
            f"The weights do not fit config.json: {len(missing)} tensors missing, {len(unexpected)} unknown, such as {named}."
        )
    if (directory / CONTEXT / ADAPTER).is_dir():
        _add_adapter(model, directory, hashes.get(f"{CONTEXT}/{ADAPTER}/{ADAPTER_WEIGHTS}"))
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(
            f"The device '{device}' cannot be used ({_last_line(error)}); expected cpu, or cuda on a machine with a GPU."
        ) from error
    return Checkpoint(model.eval(), meta, directory)


def _build(directory: Path, config: ModelConfig) -> MedSegR:
    """A model with fresh weights and the checkpoint's tokenizer."""
    try:
        tokenizer = check_tokenizer(
            PreTrainedTokenizerFast.from_pretrained(directory / CONTEXT, local_files_only=True)
        )
    except Exception as error:  # noqa: BLE001  the tokenizers library raises bare Exception
        raise CheckpointError(
            f"The tokenizer of the checkpoint cannot be read ({_last_line(error)}); copy the checkpoint anew."
        ) from error
    try:
        model = MedSegR(config, tokenizer)
    except (TypeError, ValueError, IndexError, RuntimeError, AssertionError, ArithmeticError) as error:
        raise CheckpointError(
            f"config.json describes no model that can be built ({_last_line(error)}); copy the checkpoint anew."
        ) from error
    said = _read_json(directory / CONTEXT / REASONS)
    if not all(isinstance(v, list) and all(isinstance(s, str) for s in v) for v in said.values()):
        raise CheckpointError(
            f"{REASONS} of the checkpoint must map names to lists of sentences; copy it anew."
        )
    model.context.reasons = {name: tuple(sentences) for name, sentences in said.items()}
    return model


def _add_adapter(model: MedSegR, directory: Path, expected: str | None) -> None:
    """Put the LoRA of the checkpoint beside the language model's weights."""
    from peft import PeftModel

    adapter = directory / CONTEXT / ADAPTER
    _read_json(adapter / "adapter_config.json")
    _read_weights(
        adapter / ADAPTER_WEIGHTS, expected
    )  # without this file peft would look for a pickle, or on the web
    try:
        model.context.model = PeftModel.from_pretrained(model.context.llama, adapter).float()
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"The LoRA of the checkpoint does not fit its language model ({_last_line(error)}); copy the checkpoint anew."
        ) from error


def _last_line(error: Exception) -> str:
    """The end of a library's message, without its line breaks."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
