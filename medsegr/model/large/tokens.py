"""Rows for the markup tokens beside a base model's vocabulary, so that training them copies and changes nothing of it.

Resizing the tables would make 0.5 GB of a 7B model trainable; here three rows in and three out are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medsegr.model.tokens import PHRASE_END, PHRASE_START, SEG

NEW = (SEG, PHRASE_START, PHRASE_END)


class WiderEmbedding(nn.Module):
    """The base's input embeddings up to id `known`, rows of its own from there on."""

    def __init__(self, base: nn.Module, known: int) -> None:
        super().__init__()
        self.base, self.known = base, known
        self.new = _rows(base, known)

    def forward(self, ids: Tensor) -> Tensor:
        """[...] ids -> [..., C] in the base's dtype."""
        embedded: Tensor = self.base(ids.clamp(max=self.known - 1))
        own = F.embedding((ids - self.known).clamp(min=0), self.new).to(embedded.dtype)
        return torch.where((ids >= self.known).unsqueeze(-1), own, embedded)


class WiderHead(nn.Module):
    """The base's output scores of ids below `known`, then those of its own rows; padding rows of the base are left out."""

    def __init__(self, base: nn.Module, known: int) -> None:
        super().__init__()
        self.base, self.known = base, known
        self.new = _rows(base, known)

    @property
    def weight(self) -> Any:
        """The base's table."""
        return self.base.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., C] -> [..., known + 3]."""
        scores: Tensor = self.base(hidden)
        own = F.linear(hidden, self.new.to(hidden.dtype)).to(scores.dtype)
        return torch.cat([scores[..., : self.known], own], dim=-1)


@torch.no_grad()
def _rows(base: nn.Module, known: int) -> nn.Parameter:
    """Three float32 rows around the mean of the table, a little apart; the same on every machine."""
    table: Any = base.weight
    mean = table[:known].float().mean(0)
    noise = torch.randn(len(NEW), len(mean), generator=torch.Generator().manual_seed(0))
    return nn.Parameter(mean + 0.02 * noise.to(mean))


def add_markup(model: Any, tokenizer: Any) -> tuple[WiderEmbedding, WiderHead]:
    """Add the tokens to tokenizer and model, in place. Each has to be one id, behind all others (LISA's issue #55)."""
    known = len(tokenizer)
    tokenizer.add_tokens(list(NEW), special_tokens=True)
    for number, token in enumerate(NEW):
        ids = tokenizer.encode(token, add_special_tokens=False)
        if ids != [known + number]:
            raise ValueError(f"{token} must encode to the one id {known + number}, found {ids}.")
    embedding = WiderEmbedding(model.get_input_embeddings(), known)
    head = WiderHead(model.get_output_embeddings(), known)
    model.set_input_embeddings(embedding)
    model.lm_head = head
    return embedding, head
