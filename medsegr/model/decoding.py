"""What a generated answer may say: only structures that the image seems to show or the question names may be outlined.

A small language model that meets a new description would otherwise name a structure of another part of the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from medsegr.model.tokens import PHRASE_END, PHRASE_START, token_id

DENIAL = "No"


@dataclass(frozen=True)
class Limits:
    """`phrases` that may stand between `<p>` and `</p>` (empty: any); `sure_denial`: an answer may begin with "No" only if that
    word's probability is at least this."""

    phrases: tuple[str, ...] = ()
    sure_denial: float = 0.0


class Guide:
    """Follows one answer token by token and rules out what `Limits` forbids."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, limits: Limits) -> None:
        self.start, self.end = token_id(tokenizer, PHRASE_START), token_id(tokenizer, PHRASE_END)
        self.denial = tokenizer.encode(DENIAL, add_special_tokens=False)[0]
        self.paths: list[list[int]] = [
            [*tokenizer.encode(phrase, add_special_tokens=False), self.end] for phrase in limits.phrases
        ]
        self.sure_denial = limits.sure_denial
        self.first = True
        self.inside: list[int] | None = None

    def allow(self, distribution: Tensor) -> Tensor:
        """The distribution [V] over the next token with forbidden tokens at zero."""
        if self.first and float(distribution[self.denial]) < self.sure_denial:
            distribution = distribution.index_fill(0, torch.tensor([self.denial], device=distribution.device), 0.0)
        if self.inside is not None and self.paths:
            depth = len(self.inside)
            nexts: Sequence[int] = sorted({p[depth] for p in self.paths if p[:depth] == self.inside})
            mask = torch.zeros_like(distribution)
            mask[list(nexts)] = 1.0
            distribution = distribution * mask + mask * 1e-12
        return distribution

    def step(self, token: int) -> None:
        """The token that was chosen."""
        self.first = False
        if token == self.start:
            self.inside = []
        elif token == self.end:
            self.inside = None
        elif self.inside is not None:
            self.inside.append(token)
