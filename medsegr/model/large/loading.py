"""Where base weights lie on this machine: a directory, the folder that MEDSEGR_WEIGHTS names, or the Hugging Face cache.

Nothing is ever fetched. Every error says what is missing and how to get it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from medsegr.errors import CheckpointError
from medsegr.model.large.presets import SamKind

WEIGHTS_VARIABLE = "MEDSEGR_WEIGHTS"
"""Environment variable that may name a folder with the base models (each in a folder of its own name) and SAM files."""


def find_base(name: str) -> Path:
    """Directory of the base model, with all of its weight files; raises `CheckpointError`."""
    folder = os.environ.get(WEIGHTS_VARIABLE)
    candidates = [Path(name)] + ([Path(folder) / Path(name).name] if folder else [])
    found: Path | None = next((c for c in candidates if (c / "config.json").is_file()), None)
    if found is None:
        try:
            found = Path(snapshot_download(name, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
            raise CheckpointError(
                f"The base model {name} is not on this machine: `hf download {name}` brings it, or put its folder into the one "
                f"that {WEIGHTS_VARIABLE} names."
            ) from error
    missing = [file.name for file in _weight_files(found) if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"The base model in {found} is incomplete: {', '.join(missing)} missing; download it anew."
        )
    return found


def _weight_files(directory: Path) -> list[Path]:
    """The safetensors files that the directory has to have."""
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return [directory / "model.safetensors"]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged ({error}); download the base model anew.") from error
    return [directory / str(name) for name in sorted(names)]


def base_sizes(directory: Path) -> dict[str, int]:
    """Bytes of each weight file: enough to tell another revision of a base from the one an adapter was trained on."""
    return {file.name: file.stat().st_size for file in _weight_files(directory)}


def find_sam(kind: SamKind) -> Path:
    """The SAM file, safetensors or the original .pth, in the folder that MEDSEGR_WEIGHTS names; raises `CheckpointError`."""
    folder = os.environ.get(WEIGHTS_VARIABLE)
    candidates = [Path(kind.file)] + ([Path(folder) / kind.file] if folder else [])
    for file in (c.with_name(c.name + suffix) for c in candidates for suffix in (".safetensors", ".pth")):
        if file.is_file():
            return file
    raise CheckpointError(
        f"{Path(kind.file).name}.pth is not on this machine: get it from {kind.source} and put it into the folder that the "
        f"environment variable {WEIGHTS_VARIABLE} names."
    )


def read_sam(file: Path) -> dict[str, Tensor]:
    """State of a SAM; nothing is unpickled beyond tensors. Raises `CheckpointError`."""
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
        return {str(name): tensor for name, tensor in state.items()}
    except (
        SafetensorError,
        UnpicklingError,
        OSError,
        ValueError,
        RuntimeError,
        EOFError,
        AttributeError,
    ) as error:
        raise CheckpointError(
            f"{file} is no SAM state dict of tensors ({type(error).__name__}); download it anew."
        ) from error


def load_base(directory: Path, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    """The image-text-to-text model in eval mode and its processor; raises `CheckpointError`."""
    try:
        loader: Any = AutoProcessor
        processor = loader.from_pretrained(directory, local_files_only=True)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            directory, local_files_only=True, dtype=dtype, use_safetensors=True
        )
        return model.eval().to(device), processor
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError, SafetensorError) as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointError(
            f"The base model in {directory} cannot be loaded to '{device}' ({type(error).__name__}: {line}); expected a "
            "directory that `AutoModelForImageTextToText` reads, and room for it."
        ) from error
