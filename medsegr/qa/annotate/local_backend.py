"""A language model of `transformers` from a local directory, on the CPU; nothing is fetched, no code of the directory runs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medsegr.errors import MedSegRError
from medsegr.qa.annotate.backend import EmptyReply, Message, RequestRefused


class LocalBackend:
    """Greedy replies of a causal language model with a chat template.

    directory: config, safetensors and tokenizer as saved by `save_pretrained`; max_new_tokens: longest reply. Raises
    `MedSegRError` if the directory does not hold such a model.
    """

    def __init__(self, directory: Path, max_new_tokens: int = 768) -> None:
        if not (directory / "config.json").is_file():
            raise MedSegRError(f"{directory} is no model directory; expected one with a config.json.")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                directory, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise MedSegRError(
                f"{directory} cannot be loaded as a causal language model: {' '.join(str(error).split())}"
            ) from error
        if not self._tokenizer.chat_template:
            raise MedSegRError(
                f"The tokenizer in {directory} has no chat template; expected an instruction-tuned model."
            )
        self._max_new_tokens, self._lock = max_new_tokens, threading.Lock()
        config = hashlib.sha256((directory / "config.json").read_bytes()).hexdigest()
        self.provenance: Mapping[str, str] = {
            "backend": "transformers",
            "model": directory.resolve().name,
            "config_sha256": config,
        }

    def complete(self, messages: Sequence[Message]) -> str:
        """The reply; one at a time. Raises `RequestRefused` for a conversation longer than the model's context."""
        with self._lock, torch.inference_mode():
            encoded = self._tokenizer.apply_chat_template(
                [dict(m) for m in messages], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            length = encoded["input_ids"].shape[1]
            limit = getattr(self._model.config, "max_position_embeddings", None)
            if limit is not None and length + self._max_new_tokens > limit:
                raise RequestRefused(
                    f"the prompt has {length} tokens; with {self._max_new_tokens} for the reply that is over "
                    f"the model's {limit}"
                )
            pad = self._tokenizer.pad_token_id
            produced = self._model.generate(
                **encoded,
                do_sample=False,
                max_new_tokens=self._max_new_tokens,
                pad_token_id=self._tokenizer.eos_token_id if pad is None else pad,
            )
        text = str(self._tokenizer.decode(produced[0, length:], skip_special_tokens=True))
        if not text.strip():
            raise EmptyReply("the model replied without text")
        return text

    def close(self) -> None:
        """Nothing is held but memory."""
