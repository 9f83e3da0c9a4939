"""The second grounding head: the image looks at every token that the language model has read, not at a `[SEG]` prompt alone.

The reading of "multi-modal intermediate tokens" that PRS-Med has: the image embedding attends to the last hidden states of image
and text, and what it finds there is added to it before SAM's mask decoder. The decoder itself is that of `Grounding`.
A context is [L, C]: the states that a `[SEG]` may look at, in order, its own last. A row of zeros in it is no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medsegr.model.encoder import ImageFeatures
from medsegr.model.grounding import Grounding, Masks
from medsegr.model.presets import ModelConfig

HEADS = ("seg_tokens", "cross_attention")
MULTIPLE = 64
"""Contexts are filled up to a multiple of this: shapes that recur let the CPU's kernels be compiled once."""


class ContextProjection(nn.Module):
    """States of contexts -> tokens that the image attends to; `match` tells how well they fit each place of the image.

    It holds all that the vision stage cannot train: a structure's name is one token, and attention to one token needs no choice.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.grounding_dim
        self.layers = nn.Sequential(
            nn.Linear(config.context_dim, config.context_dim), nn.ReLU(), nn.Linear(config.context_dim, dim)
        )
        self.own = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, states: Tensor) -> Tensor:
        """[N, L, C] contexts -> [N, L, G] tokens, zeros where there is none."""
        tokens: Tensor = self.layers(states)
        return tokens * states.any(dim=2, keepdim=True)

    def match(self, places: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of places [B, P, G] and keys of tokens [N, L, G]; the last token of a context bears a mark, so that of two
        `[SEG]` in one answer each knows which is meant."""
        last = torch.arange(tokens.shape[1], device=tokens.device) == tokens.shape[1] - 1
        return self.query(places), self.key(tokens + last.unsqueeze(1) * self.own)


class CrossAttentionGrounding(Grounding):
    """Contexts and optional clicks -> masks. `names` [n_targets, G] are contexts of one token each."""

    project: ContextProjection  # type: ignore[assignment]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(replace(config, prompt_tokens=1))
        self.project = ContextProjection(config)
        self.heads = 8 if self.dim % 8 == 0 else 4

    def agreeing(self, prompts: Tensor, targets: Tensor) -> Tensor:
        """As they are: a context of many tokens is no point among the names."""
        return prompts

    def decode(
        self, features: ImageFeatures, image_index: Tensor, prompts: Tensor, points: Tensor, labels: Tensor
    ) -> Masks:
        """One mask per prompt: projected contexts [N, L, G], or rows of `names` [N, G]; the rest as in `Grounding.decode`."""
        tokens = prompts.view(len(prompts), -1, self.dim)
        encoder = self.prompt_encoder
        size = features.embedding.shape[-2:]
        position = encoder.pe_layer(size).unsqueeze(0).to(tokens.dtype)
        clicks = encoder._embed_points(points, labels, pad=False).to(tokens.dtype)
        found = self._found(features.embedding + position, image_index, tokens)
        empty = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).to(tokens.dtype)
        return self.decoder.decode(features, image_index, position, clicks, found + empty)

    def _found(self, embedding: Tensor, image_index: Tensor, tokens: Tensor) -> Tensor:
        """What each place of the image finds among the tokens of a prompt: [N, G, h, w], or [N, G, 1, 1] for a single token."""
        n, length, dim = tokens.shape
        if length == 1:
            return tokens.view(n, dim, 1, 1)
        places = embedding.flatten(2).transpose(1, 2)
        query, key = self.project.match(places, tokens)
        real = tokens.any(dim=2)
        found = F.scaled_dot_product_attention(
            self._split(query)[image_index],
            self._split(key),
            self._split(tokens.to(key.dtype)),
            attn_mask=real[:, None, None, :],
        )
        return found.transpose(2, 3).reshape(n, dim, *embedding.shape[-2:])

    def _split(self, x: Tensor) -> Tensor:
        """[N, L, G] -> [N, heads, L, G / heads]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


def new_grounding(config: ModelConfig) -> Grounding:
    """The head that the configuration names; raises `ValueError` for one that does not exist."""
    if config.grounding_head not in HEADS:
        raise ValueError(f"grounding_head is '{config.grounding_head}'; expected one of {', '.join(HEADS)}")
    return Grounding(config) if config.grounding_head == "seg_tokens" else CrossAttentionGrounding(config)


def contexts(hidden: Tensor, segment: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """[N, L, C]: for each state at row [N] and text column [N], all that it could look at, itself last, zeros in front.

    hidden [B, n + T, C] are the states of the image tokens and the text after them, segment [B, T] the conversations' numbers.
    """
    n_image = hidden.shape[1] - segment.shape[1]
    same = segment[row] == segment[row, column].unsqueeze(1)
    until = torch.arange(segment.shape[1], device=segment.device) <= column.unsqueeze(1)
    seen = F.pad(same & until, (n_image, 0), value=True)
    longest = int(seen.sum(1).max()) if len(row) else 1
    length = min(longest + -longest % MULTIPLE, seen.shape[1])
    picked = torch.argsort(seen.int(), dim=1, stable=True)[:, -length:]
    return hidden[row.unsqueeze(1), picked] * seen.gather(1, picked).unsqueeze(2)


def stack(found: Sequence[Tensor]) -> Tensor:
    """States [C] -> [N, C], or contexts [L, C] of any lengths -> [N, longest, C] with zeros in front."""
    return torch.nn.utils.rnn.pad_sequence(list(found), batch_first=True, padding_side="left")
