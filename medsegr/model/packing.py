"""Conversations as token rows. Those about one image share a row: each sees the image and itself, never another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from medsegr.model.question import SentenceEncoder
from medsegr.model.tokens import ANSWER, END, QUESTION, SEG, token_id

Turns = Sequence[tuple[str, str | None]]
IGNORE = -100
FIRST, TAIL = 4.0, 0.25


@dataclass
class Packed:
    """[B, T] int64 each. `token_ids`; `question_index` row of the question states or -1; `segment` 0 = padding, else 1..K;
    `position` inside the conversation, from 0; `labels` the next token where it is to be learnt, else -100;
    `weights` (float32) what that token counts in the loss."""

    token_ids: Tensor
    question_index: Tensor
    segment: Tensor
    position: Tensor
    labels: Tensor
    weights: Tensor

    def to(self, device: torch.device | str) -> Packed:
        """The same on another device."""
        return Packed(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def attention(self, n_image: int) -> tuple[Tensor, Tensor]:
        """Boolean mask [B, 1, n + T, n + T] (True = may look) and positions [B, n + T] with the image in front."""
        b, t = self.segment.shape
        segment = torch.cat([self.segment.new_zeros(b, n_image), self.segment], dim=1)
        image = torch.arange(n_image + t, device=segment.device) < n_image
        same = segment.unsqueeze(2) == segment.unsqueeze(1)
        causal = torch.ones(n_image + t, n_image + t, dtype=torch.bool, device=segment.device).tril()
        mask = (same | image.view(1, 1, -1)) & causal
        start = torch.arange(n_image, device=segment.device).expand(b, -1)
        return mask.unsqueeze(1), torch.cat([start, self.position + n_image], dim=1)


def conversation_tokens(
    tokenizer: PreTrainedTokenizerFast, turns: Turns, encoder: SentenceEncoder | None
) -> tuple[Packed, Tensor]:
    """One conversation as a `Packed` with B = 1, and its question states [Q, D].

    A turn whose answer is None ends the row after `<a>`: the model is to write it. Without `encoder` the question is spelt in the
    tokenizer's own ids.
    """
    question_id, answer_id, end_id, seg_id = (
        token_id(tokenizer, token) for token in (QUESTION, ANSWER, END, SEG)
    )
    tokens: list[int] = []
    index: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    states: list[Tensor] = []
    n_states = 0
    encoded = encoder.encode([question for question, _ in turns]) if encoder else None
    for turn, (question, answer) in enumerate(turns):
        tokens.append(question_id)
        index.append(-1)
        if encoded is None:
            spelt = tokenizer.encode(question, add_special_tokens=False)
            tokens += spelt
            index += [-1] * len(spelt)
        else:
            n = encoded[turn].shape[0]
            states.append(encoded[turn])
            tokens += [question_id] * n
            index += range(n_states, n_states + n)
            n_states += n
        labels += [IGNORE] * (len(tokens) - len(labels))
        weights += [0.0] * (len(tokens) - len(weights))
        tokens.append(answer_id)
        index.append(-1)
        if answer is None:
            labels.append(IGNORE)
            weights.append(0.0)
            break
        answer_ids = [*tokenizer.encode(answer, add_special_tokens=False), end_id]
        tokens += answer_ids
        index += [-1] * len(answer_ids)
        labels += [*answer_ids, IGNORE]
        weights += [*token_weights(answer_ids, seg_id), 0.0]
    columns = (tokens, index, [1] * len(tokens), list(range(len(tokens))), labels, weights)
    rows = [torch.tensor([column]) for column in columns]
    dim = states[0].shape[1] if states else 1
    return Packed(*rows), torch.cat(states) if states else torch.zeros(0, dim)


def token_weights(answer_ids: Sequence[int], seg_id: int) -> list[float]:
    """What each token of an answer counts: the first decides whether anything is there at all, the words after
    the last `[SEG]` only explain."""
    segs = [i for i, token in enumerate(answer_ids) if token == seg_id]
    last = segs[-1] if segs else len(answer_ids)
    return [FIRST if i == 0 else 1.0 if i <= last else TAIL for i in range(len(answer_ids))]


def pack(
    rows: Sequence[Sequence[tuple[Packed, Tensor]]], pad_id: int, multiple: int = 1
) -> tuple[Packed, Tensor, list[list[int]]]:
    """Pack the conversations of each image into one row.

    Returns the packed batch, all question states [Q, D] and, per image, the column at which each conversation starts. T and Q are
    rounded up to `multiple`: shapes that recur let the CPU's kernels be compiled once.
    """
    merged: list[Packed] = []
    states: list[Tensor] = []
    starts: list[list[int]] = []
    n_states = 0
    for conversations in rows:
        parts: list[Packed] = []
        columns: list[int] = []
        column = 0
        for number, (packed, its_states) in enumerate(conversations, start=1):
            index = torch.where(
                packed.question_index >= 0, packed.question_index + n_states, packed.question_index
            )
            parts.append(replace(packed, question_index=index, segment=packed.segment * number))
            states.append(its_states)
            n_states += its_states.shape[0]
            columns.append(column)
            column += packed.token_ids.shape[1]
        merged.append(
            Packed(
                *(
                    torch.cat([getattr(p, name) for p in parts], dim=1)[0]
                    for name in Packed.__dataclass_fields__
                )
            )
        )
        starts.append(columns)
    fill = {
        "token_ids": pad_id,
        "question_index": -1,
        "segment": 0,
        "position": 0,
        "labels": IGNORE,
        "weights": 0.0,
    }
    padded = {
        name: torch.nn.utils.rnn.pad_sequence(
            [getattr(m, name) for m in merged], batch_first=True, padding_value=value
        )
        for name, value in fill.items()
    }
    length, all_states = padded["token_ids"].shape[1], torch.cat(states)
    for name, value in fill.items():
        padded[name] = torch.nn.functional.pad(padded[name], (0, -length % multiple), value=value)
    all_states = torch.nn.functional.pad(all_states, (0, 0, 0, -len(all_states) % multiple))
    return Packed(**padded), all_states, starts
