"""Global context understanding with a large image-text-to-text model: LLaVA, Qwen2.5-VL and whatever has their interface.

A conversation is the processor's expanded ids of the opening with its image, then the turns. The opening is run once per image
and kept as a key/value cache (`LargePrefix`), so a follow-up pays for its own words alone. `[SEG]` is found by its id, never by
an offset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from medsegr.model.context import Generated, Prefix
from medsegr.model.decoding import Limits
from medsegr.model.large.presets import LargeConfig
from medsegr.model.large.tokens import NEW, add_markup
from medsegr.model.packing import IGNORE, Turns
from medsegr.model.question import SentenceEncoder

PADDING = (122, 116, 104)
"""CLIP's mean colour."""


@dataclass
class LargePrefix(Prefix):
    """The cache of one image; `shift` is what multi-modal rotary positions (Qwen2.5-VL) are behind the sequence's."""

    shift: int = 0


class LargeContext(nn.Module):
    """Base model, processor and the three markup tokens. The base is frozen; a LoRA and the tokens' rows are trained."""

    def __init__(self, config: LargeConfig, model: Any, processor: Any) -> None:
        super().__init__()
        self.config, self.processor, self.tokenizer = config, processor, processor.tokenizer
        self.reasons: dict[str, tuple[str, ...]] = {}
        model.requires_grad_(False)
        self.table, self.head = add_markup(model, self.tokenizer)
        self.seg_id = self.table.known + NEW.index("[SEG]")
        self.end_id = int(self.tokenizer.convert_tokens_to_ids(config.dialogue.end))
        self.model: Any = model

    @property
    def base(self) -> Any:
        """The image-text-to-text model, inside a PEFT wrapper or not."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def dtype(self) -> torch.dtype:
        """Of the base's weights."""
        dtype: torch.dtype = self.head.weight.dtype
        return dtype

    @property
    def hidden_size(self) -> int:
        """Width of the language model's states."""
        return int(self.head.weight.shape[1])

    def add_lora(self) -> None:
        """Put a fresh LoRA into the language model; it and the markup rows need gradients, nothing else does."""
        from peft import LoraConfig, get_peft_model

        c = self.config
        lora = LoraConfig(
            r=c.lora_rank,
            lora_alpha=c.lora_alpha,
            lora_dropout=c.lora_dropout,
            target_modules=c.lora_targets,
            task_type="CAUSAL_LM",
        )
        self.model = get_peft_model(self.model, lora)
        self._train_rows()

    def load_lora(self, directory: Path, merge: bool) -> None:
        """Read a LoRA in PEFT format; merged into the base it costs nothing when answering, else it can be trained on."""
        from peft import PeftModel

        model = PeftModel.from_pretrained(self.model, directory, is_trainable=not merge)
        self.model = model.merge_and_unload() if merge else model
        self._train_rows()

    def _train_rows(self) -> None:
        self.table.new.requires_grad_(True)
        self.head.new.requires_grad_(True)

    def save_lora(self, directory: Path) -> None:
        """Write the LoRA in PEFT format; the markup rows are not part of it."""
        self.model.save_pretrained(directory, save_embedding_layers=False)

    def read(self, picture: Tensor) -> dict[str, Tensor]:
        """The processor's tensors for the opening with a picture [H, W, 3] uint8."""
        image = Image.fromarray(picture.cpu().numpy())
        if self.config.pad:
            whole = max(image.size)
            image = ImageOps.pad(image, (whole, whole), color=PADDING)
        if side := self.config.context_side:
            scale = side / max(image.size)
            image = image.resize((max(28, round(image.width * scale)), max(28, round(image.height * scale))))
        found = self.processor(images=image, text=self.config.dialogue.opening, return_tensors="pt")
        return {
            name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in found.items()
        }

    def spell(self, turns: Turns) -> tuple[list[int], list[bool]]:
        """Ids of the turns behind the opening, and which of them are to be learnt. After an answer of None the model writes."""
        ids: list[int] = []
        learnt: list[bool] = []
        for number, (question, answer) in enumerate(turns):
            asked = (self.config.dialogue.again if number else "") + question + self.config.dialogue.answer
            spelt = self.tokenizer.encode(asked, add_special_tokens=False)
            ids += spelt
            learnt += [False] * len(spelt)
            if answer is None:
                break
            spelt = [*self.tokenizer.encode(answer, add_special_tokens=False), self.end_id]
            ids += spelt
            learnt += [True] * len(spelt)
        return ids, learnt

    def collate(
        self, pictures: Sequence[Tensor], dialogues: Sequence[Turns]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs of one conversation per picture, padded on the right, and labels [B, T]: the next token where it is learnt."""
        read = [self.read(picture) for picture in pictures]
        rows: list[Tensor] = []
        labels: list[Tensor] = []
        for inputs, turns in zip(read, dialogues, strict=True):
            ids, learnt = self.spell(turns)
            opening = inputs["input_ids"][0]
            rows.append(torch.cat([opening, torch.tensor(ids)]))
            following = [token if known else IGNORE for token, known in zip(ids, learnt, strict=True)]
            labels.append(torch.tensor([IGNORE] * (len(opening) - 1) + following + [IGNORE]))
        joined = {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=self.end_id),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        }
        for name in read[0]:
            if name == "mm_token_type_ids":
                wide = torch.zeros_like(joined["input_ids"])
                for row, inputs in zip(wide, read, strict=True):
                    row[: inputs[name].shape[1]] = inputs[name][0]
                joined[name] = wide
            elif name not in joined:
                joined[name] = torch.cat([inputs[name] for inputs in read])
        return joined, pad_sequence(labels, batch_first=True, padding_value=IGNORE)

    def forward(self, inputs: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher-forced pass: hidden states [B, T, C] and the mean cross-entropy of the learnt tokens."""
        hidden: Tensor = self.base.model(**inputs, use_cache=False).last_hidden_state
        learnt = labels != IGNORE
        return hidden, F.cross_entropy(self.head(hidden[learnt]).float(), labels[learnt])

    @torch.inference_mode()
    def prefix(self, picture: Tensor) -> LargePrefix:
        """Run the opening with a picture [H, W, 3] (or [1, H, W, 3]) uint8: image encoder and language model, once per image."""
        inputs = self.read(picture.reshape(picture.shape[-3:]))
        cache = DynamicCache()
        self.base.model(
            **{name: t.to(self.head.weight.device) for name, t in inputs.items()},
            past_key_values=cache,
            use_cache=True,
        )
        shift = getattr(self.base.model, "rope_deltas", None)
        return LargePrefix(cache, cache.get_seq_length(), shift=0 if shift is None else int(shift))

    @torch.inference_mode()
    def generate(
        self,
        prefix: Prefix,
        turns: Sequence[tuple[str, str]],
        question: str,
        encoder: SentenceEncoder | None = None,
        *,
        limits: Limits | None = None,
        max_new_tokens: int | None = None,
        on_token: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Generated | None:
        """Greedy answer to `question` after `turns`; None when `should_stop` said so. The prefix is left as it was.

        `encoder` and `limits` belong to the embedded model and are not used.
        """
        out: list[int] = []
        states: list[Tensor] = []
        chances: list[float] = []
        try:
            hidden = self._extend(prefix, self.spell([*turns, (question, None)])[0])
            while len(out) < (max_new_tokens or self.config.max_new_tokens):
                if should_stop and should_stop():
                    return None
                distribution = self.head(hidden).float().softmax(-1)
                token = self.choose(distribution, out)
                chances.append(float(distribution[token]))
                if token == self.end_id:
                    break
                before, hidden = hidden, self._extend(prefix, [token])
                out.append(token)
                if token == self.seg_id:
                    states.append(hidden if self.config.seg_state == "token" else before)
                if on_token:
                    on_token(self.tokenizer.decode(out))
        finally:
            if added := prefix.cache.get_seq_length() - prefix.length:
                prefix.cache.crop(-added)
        stacked = torch.stack(states) if states else hidden.new_zeros((0, hidden.shape[-1]))
        score = sum(chances) / max(len(chances), 1)
        return Generated(str(self.tokenizer.decode(out)), stacked, score, min(chances, default=1.0))

    def choose(self, distribution: Tensor, said: Sequence[int]) -> int:
        """The next token after those `said`: the likeliest."""
        return int(distribution.argmax())

    def _extend(self, prefix: Prefix, ids: Sequence[int]) -> Tensor:
        """Run more tokens behind the cache; the state [C] of the last."""
        assert isinstance(prefix, LargePrefix)
        device = self.head.weight.device
        start = prefix.cache.get_seq_length()
        positions = torch.arange(start, start + len(ids), device=device)[None] + prefix.shift
        hidden: Tensor = self.base.model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=positions,
            past_key_values=prefix.cache,
            use_cache=True,
        ).last_hidden_state
        return hidden[0, -1]
