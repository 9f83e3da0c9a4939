"""Global context understanding: a causal language model that reads image tokens, the dialogue so far and the question.

It writes the answer and, with it, the multi-modal intermediate tokens: the hidden states at `[SEG]`, one per target, which the
grounding module decodes into masks. The image is a prefix: it is run once, kept as a key/value cache, and shared by every
question about the image.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from medsegr.model.cross_attention import stack
from medsegr.model.decoding import Guide, Limits
from medsegr.model.packing import IGNORE, Packed, conversation_tokens
from medsegr.model.presets import ModelConfig
from medsegr.model.question import SentenceEncoder
from medsegr.model.tokens import ANSWER, END, PAD, SEG, token_id

ADAPTER = "adapter"
REASONS = "reasons.json"
WORD_DROPOUT = 0.15


@dataclass
class Generated:
    """A generated answer: `text` with markup, `states` [n, C] one per `[SEG]` (or [n, L, C], its context, for the cross-attention
    head), `score` the mean probability of the tokens that were a choice, `weakest` the smallest; `words` has for each `[SEG]` the
    probability of the tokens that led to it from the one before (those that were a choice)."""

    text: str
    states: Tensor
    score: float
    weakest: float = 1.0
    words: tuple[float, ...] = ()


@dataclass
class Prefix:
    """The language model's key/value cache of one image; `length` positions. `states` [length, C] are kept for the
    cross-attention head only."""

    cache: DynamicCache
    length: int
    states: Tensor | None = None

    @property
    def n_bytes(self) -> int:
        """Memory that keys and values occupy."""
        layers: list[Any] = list(self.cache.layers)
        tensors = [t for layer in layers for t in (layer.keys, layer.values)]
        tensors += [] if self.states is None else [self.states]
        return sum(int(t.numel() * t.element_size()) for t in tensors)


def language_model(config: ModelConfig, vocabulary: int, end: int, pad: int) -> LlamaForCausalLM:
    """A small Llama, fresh weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=config.context_dim,
            intermediate_size=config.context_mlp_dim,
            num_hidden_layers=config.context_layers,
            num_attention_heads=config.context_heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=end,
            pad_token_id=pad,
        )
    )


class GlobalContext(nn.Module):
    """Language model, question projection and tokenizer; never looks at pixels, only at the encoder's image tokens.

    `reasons`: for each structure the sentences that training said of it after its `[SEG]`; nothing else is said of it later.
    """

    def __init__(self, config: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        self.seg_id, self.end_id, self.answer_id = (
            token_id(tokenizer, token) for token in (SEG, END, ANSWER)
        )
        self.model: Any = language_model(config, len(tokenizer), self.end_id, token_id(tokenizer, PAD))
        self.reasons: dict[str, tuple[str, ...]] = {}
        self._spelt: dict[str, list[int]] = {}  # grows with targets and reasons only, not with questions
        self.question_norm = nn.LayerNorm(config.question_dim)
        self.question_project = nn.Linear(config.question_dim, config.context_dim)

    @property
    def llama(self) -> LlamaForCausalLM:
        """The causal language model, inside a PEFT wrapper or not."""
        model: LlamaForCausalLM = (
            self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        )
        return model

    def add_lora(self, rank: int = 8, alpha: int = 16, dropout: float = 0.05) -> None:
        """Freeze the language model and add LoRA to the query and value projections of its attention (LISA's setting)."""
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=r".*self_attn\.(q_proj|v_proj)",
            task_type="CAUSAL_LM",
        )
        self.model = get_peft_model(self.llama, lora)

    def merge_lora(self) -> None:
        """Add a LoRA, if there is one, to the weights it stands beside; all of them can be trained again."""
        if hasattr(self.model, "peft_config"):
            self.model = self.model.merge_and_unload().requires_grad_(True)

    def save_pretrained(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """HF format (config, safetensors, tokenizer) in `dtype` and the reasons; a LoRA goes beside it in PEFT format. Changes
        nothing here."""
        stored = copy.deepcopy(self.model).to(dtype or self.llama.dtype)
        if hasattr(stored, "peft_config"):
            stored.save_pretrained(directory / ADAPTER)
            stored = stored.unload()
        stored.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        said = json.dumps({name: list(sentences) for name, sentences in self.reasons.items()}, indent=1)
        (directory / REASONS).write_text(f"{said}\n", encoding="utf-8")

    def embed(self, packed: Packed, question_states: Tensor) -> Tensor:
        """[B, T, C] input embeddings: answer tokens from the table, question words from the sentence encoder's states."""
        embeddings: Tensor = self.llama.get_input_embeddings()(packed.token_ids)
        if question_states.shape[0]:
            projected = self.question_project(
                self.question_norm(question_states.to(embeddings.device, torch.float32))
            )
            if self.training:  # forget a word now and then: meaning should not hang on one
                kept = torch.rand(len(projected), 1, device=projected.device) >= WORD_DROPOUT
                projected = projected * kept
            picked = nn.functional.embedding(packed.question_index.clamp(min=0), projected)
            embeddings = torch.where(
                (packed.question_index >= 0).unsqueeze(-1), picked.to(embeddings.dtype), embeddings
            )
        return embeddings

    def forward(self, image_tokens: Tensor, packed: Packed, question_states: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher-forced pass over packed conversations.

        image_tokens [B, N, C]; returns hidden states [B, T, C] of the text positions and the text loss (mean of learnt tokens).
        """
        text = self.read(image_tokens, packed, question_states)[:, image_tokens.shape[1] :]
        return text, self.text_loss(text, packed)

    def read(self, image_tokens: Tensor, packed: Packed, question_states: Tensor) -> Tensor:
        """Hidden states [B, N + T, C] of the image tokens [B, N, C] and the text after them."""
        embeddings = torch.cat(
            [image_tokens, self.embed(packed, question_states).to(image_tokens.dtype)], dim=1
        )
        mask, positions = packed.attention(image_tokens.shape[1])
        hidden: Tensor = self.llama.model(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        return hidden

    def text_loss(self, text: Tensor, packed: Packed) -> Tensor:
        """Weighted mean cross-entropy of the tokens that are to be learnt; text [B, T, C] hidden states."""
        learnt = packed.labels != IGNORE  # the vocabulary is wide: spell only what is to be learnt
        each = nn.functional.cross_entropy(
            self.llama.lm_head(text[learnt]).float(), packed.labels[learnt], reduction="none"
        )
        weights = packed.weights[learnt]
        return (each * weights).sum() / weights.sum().clamp(min=1)

    @torch.inference_mode()
    def prefix(self, image_tokens: Tensor) -> Prefix:
        """Key/value cache of one image's tokens [1, N, C]."""
        cache = DynamicCache()
        hidden = self.llama.model(inputs_embeds=image_tokens, past_key_values=cache, use_cache=True)
        wide = self.config.grounding_head == "cross_attention"
        return Prefix(cache, image_tokens.shape[1], hidden.last_hidden_state[0] if wide else None)

    @torch.inference_mode()
    def generate(
        self,
        prefix: Prefix,
        turns: Sequence[tuple[str, str]],
        question: str,
        encoder: SentenceEncoder | None,
        *,
        limits: Limits | None = None,
        max_new_tokens: int | None = None,
        on_token: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Generated | None:
        """Greedy answer to `question` after `turns`, within `limits`; None when `should_stop` said so.

        The prefix is left as it was.
        """
        packed, states = conversation_tokens(self.tokenizer, [*turns, (question, None)], encoder)
        packed = packed.to(self.llama.device)
        out: list[int] = []
        seg_states: list[Tensor] = []
        probabilities: list[float] = []
        words: list[float] = []
        led = 1.0
        guide = Guide(self.tokenizer, limits or Limits(), self._spelt)
        try:
            read = self._extend(prefix, self.embed(packed, states))[0]
            hidden = read[-1]
            seen = hidden[None] if prefix.states is None else torch.cat([prefix.states, read])
            limit = max_new_tokens or self.config.max_new_tokens
            while len(out) < limit:
                if should_stop and should_stop():
                    return None
                distribution = guide.allow(self.llama.lm_head(hidden).float().softmax(-1))
                token = int(distribution.argmax())
                probabilities.append(float(distribution[token]))
                led *= probabilities[-1]
                run = guide.run(token, limit - len(out))
                for _ in range(run.count(self.seg_id)):
                    words.append(led)
                    led = 1.0
                ended = run[-1] == self.end_id
                said = run[:-1] if ended else run
                if self.seg_id in said or not ended:  # the last words of an answer need not be read
                    ids = torch.tensor([said], device=hidden.device)
                    new = self._extend(prefix, self.llama.get_input_embeddings()(ids))[0]
                    first = len(seen) if self.config.seg_state == "token" else len(seen) - 1
                    seen = torch.cat([seen, new])
                    last = [first + i for i, t in enumerate(said) if t == self.seg_id]
                    seg_states += [seen[n] if prefix.states is None else seen[: n + 1] for n in last]
                    hidden = new[-1]
                out += said
                if on_token and said:
                    on_token(str(self.tokenizer.decode(out)))
                if ended:
                    break
        finally:
            added = prefix.cache.get_seq_length() - prefix.length
            if added:
                prefix.cache.crop(-added)
        text = str(self.tokenizer.decode(out))
        stacked = stack(seg_states) if seg_states else hidden.new_zeros((0, hidden.shape[-1]))
        return Generated(
            text,
            stacked,
            sum(probabilities) / max(len(probabilities), 1),
            min(probabilities, default=1.0),
            tuple(words),
        )

    def _extend(self, prefix: Prefix, embeddings: Tensor) -> Tensor:
        hidden: Tensor = self.llama.model(
            inputs_embeds=embeddings, past_key_values=prefix.cache, use_cache=True
        ).last_hidden_state
        return hidden
