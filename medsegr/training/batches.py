"""From cases to `Batch`: which images, which of their conversations, and which masks are decoded."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from medsegr.model.context import GlobalContext
from medsegr.model.medsegr import Batch, MedSegR
from medsegr.model.packing import Packed, conversation_tokens, pack
from medsegr.model.question import SentenceEncoder
from medsegr.qa.schema import Conversation, Target
from medsegr.training.augment import Augmentation, augment
from medsegr.training.images import Case


@dataclass(frozen=True)
class Sampling:
    """How a step is filled.

    `images` per step; `conversations` per image (more in sets with many targets, as many as fit into `row_tokens`); `masks`
    decoded; `other_image` how often a token is also used on a second image of its set; `click` how often a mask
    gets a click as well. Rows are padded to `shape_multiple`, so that shapes recur.
    """

    images: int = 12
    conversations: int = 6
    extra_conversations: int = 5
    row_tokens: int = 250
    shape_multiple: int = 256
    masks: int = 48
    other_image: float = 0.3
    click: float = 0.15


@dataclass(frozen=True)
class Query:
    """One `[SEG]` of a step: image row, column in the packed row, and what it stands for."""

    row: int
    column: int
    target: Target


class Sampler:
    """Draws cases: sets by the root of their size, more for those with many targets and those not yet learnt; images evenly
    within a set."""

    def __init__(self, cases: Sequence[Case], seed: int) -> None:
        self.rng = random.Random(seed)
        by_set: dict[str, list[Case]] = defaultdict(list)
        for case in cases:
            by_set[case.dataset].append(case)
        self.by_set = by_set
        self.names = sorted(by_set)
        targets = {
            name: len(
                {t.label for c in by_set[name] for v in c.conversations for u in v.turns for t in u.targets}
            )
            for name in self.names
        }
        self.base = {
            name: math.sqrt(len(by_set[name])) * (1 + 0.5 * math.log2(1 + targets[name]))
            for name in self.names
        }
        self.level = dict.fromkeys(self.names, 0.5)
        self.n_targets = targets
        self.queues: dict[str, list[Case]] = {name: [] for name in self.names}

    def draw(self, count: int) -> list[Case]:
        """`count` cases; every image of a set comes once before any comes twice."""
        chosen = []
        weights = [self.base[name] * (1.15 - self.level[name]) for name in self.names]
        for name in self.rng.choices(self.names, weights, k=count):
            if not self.queues[name]:
                self.queues[name] = self.rng.sample(self.by_set[name], len(self.by_set[name]))
            chosen.append(self.queues[name].pop())
        return chosen

    def learnt(self, dice: Mapping[str, float]) -> None:
        """Note how well sets are outlined just now: those that are not will be drawn more often."""
        for name, value in dice.items():
            self.level[name] += 0.03 * (value - self.level[name])

    def conversations(self, case: Case, sampling: Sampling) -> list[Conversation]:
        """Some of a case's conversations: more where a set has many targets."""
        n = sampling.conversations + min(sampling.extra_conversations, self.n_targets[case.dataset] // 3)
        return self.rng.sample(list(case.conversations), min(n, len(case.conversations)))


def _queries(
    context: GlobalContext, packed_ids: Tensor, drawn: list[list[Conversation]], starts: list[list[int]]
) -> list[Query]:
    queries: list[Query] = []
    for row, (conversations, columns) in enumerate(zip(drawn, starts, strict=True)):
        ends = [*columns[1:], packed_ids.shape[1]]
        for conversation, start, end in zip(conversations, columns, ends, strict=True):
            seg = torch.nonzero(packed_ids[row, start:end] == context.seg_id)[:, 0] + start
            targets = [target for turn in conversation.turns for target in turn.targets]
            if len(seg) != len(targets):
                raise ValueError(f"{conversation.id}: {len(seg)} [SEG] tokens for {len(targets)} targets.")
            queries += [Query(row, int(column), target) for column, target in zip(seg, targets, strict=True)]
    return queries


def _pairs(
    queries: Sequence[Query], cases: Sequence[Case], labels: Tensor, rng: random.Random, rate: float
) -> list[tuple[int, int]]:
    """(query, image row) to decode: each query on its own image, some on another image of the set where the truth is known."""
    pairs = [(q, query.row) for q, query in enumerate(queries)]
    present = [set(np.unique(rows).tolist()) for rows in labels.numpy()]
    for q, query in enumerate(queries):
        if rng.random() >= rate:
            continue
        others = [
            row
            for row, case in enumerate(cases)
            if row != query.row
            and case.dataset == cases[query.row].dataset
            and (
                query.target.label in case.absent
                or query.target.label in case.present
                and present[row] & set(query.target.value)
            )
        ]
        if others:
            pairs.append((q, rng.choice(others)))
    return pairs


def make_batch(
    model: MedSegR,
    encoder: SentenceEncoder | None,
    sampler: Sampler,
    sampling: Sampling,
    ranges: Augmentation,
    generator: torch.Generator,
) -> Batch:
    """Draw, augment and pack one step; tensors on the CPU."""
    cases = sampler.draw(sampling.images)
    rgb, labels = augmented(cases, ranges, generator)
    return batch_of(model, encoder, sampler, sampling, cases, model.normalise(rgb), labels)


class Conversations(Protocol):
    """What a batch needs of whoever drew its images."""

    rng: random.Random

    def conversations(self, case: Case, sampling: Sampling) -> list[Conversation]:
        """Some of a case's conversations."""


def batch_of(
    model: MedSegR,
    encoder: SentenceEncoder | None,
    sampler: Conversations,
    sampling: Sampling,
    cases: Sequence[Case],
    pixels: Tensor,
    labels: Tensor,
) -> Batch:
    """Pack conversations about the images [B, 3, S, S] (none, where features are at hand) with label maps [B, S, S]."""
    context = model.context
    drawn: list[list[Conversation]] = []
    rows: list[list[tuple[Packed, Tensor]]] = []
    for case in cases:
        asked: list[Conversation] = []
        row: list[tuple[Packed, Tensor]] = []
        length = 0
        for conversation in sampler.conversations(case, sampling):
            tokens = conversation_tokens(
                context.tokenizer, [(t.question, t.answer) for t in conversation.turns], encoder
            )
            length += tokens[0].token_ids.shape[1]
            if row and length > sampling.row_tokens:
                break
            asked.append(conversation)
            row.append(tokens)
        drawn.append(asked)
        rows.append(row)
    packed, states, starts = pack(rows, context.tokenizer.pad_token_id, sampling.shape_multiple)
    queries = _queries(context, packed.token_ids, drawn, starts)
    small = labels[:, ::2, ::2]
    pairs = _pairs(queries, cases, small, sampler.rng, sampling.other_image)
    if pairs:  # always the same number of masks: some twice, or some left out
        pairs = sampler.rng.sample(pairs, min(len(pairs), sampling.masks))
        pairs += sampler.rng.choices(pairs, k=sampling.masks - len(pairs))
    table = torch.zeros(len(queries), 256, dtype=torch.bool)
    for q, query in enumerate(queries):
        table[q, list(query.target.value)] = True
    decode_query = torch.tensor([p[0] for p in pairs], dtype=torch.long)
    decode_image = torch.tensor([p[1] for p in pairs], dtype=torch.long)
    truth = (
        torch.stack([table[q][small[row].long()] for q, row in pairs])
        if pairs
        else torch.zeros(0, *small.shape[1:], dtype=torch.bool)
    )
    number = {name: i for i, name in enumerate(model.config.targets)}
    points, point_labels = clicks(truth, sampler.rng, sampling.click)
    return Batch(
        pixels,
        packed,
        states,
        torch.tensor([q.row for q in queries], dtype=torch.long),
        torch.tensor([q.column for q in queries], dtype=torch.long),
        decode_query,
        decode_image,
        truth,
        points,
        point_labels,
        shown(cases, labels, model.config.targets),
        torch.tensor([number.get(q.target.label, -1) for q in queries], dtype=torch.long),
    )


def augmented(
    cases: Sequence[Case], ranges: Augmentation, generator: torch.Generator, swap: bool = False
) -> tuple[Tensor, Tensor]:
    """The pictures [B, S, S, 3] and label maps [B, S, S] of the cases after augmentation. With `swap`, half of the images whose
    sides are alike are mirrored and their labels renumbered (what was said about the image holds no longer)."""
    rgb = torch.from_numpy(np.stack([c.rgb for c in cases]))
    labels = torch.from_numpy(np.stack([c.labels for c in cases]))
    coin = torch.rand(len(cases), generator=generator) < (0.5 if swap and ranges.degrees else 0.0)
    for i, case in enumerate(cases):
        if case.swap is not None and bool(coin[i]):
            rgb[i] = rgb[i].flip(1)
            labels[i] = torch.from_numpy(case.swap)[labels[i].flip(1).long()]
    may = [torch.tensor([getattr(c, name) for c in cases]) for name in ("mirror_x", "mirror_y", "turn")]
    return augment(rgb, labels, may[0], may[1], may[2], ranges, generator)


def shown(cases: Sequence[Case], labels: Tensor, targets: Sequence[str]) -> Tensor:
    """[B, n_targets] int64: 1 where a labelled image of this kind shows the target, 0 where not, -1 where it may be there
    unlabelled. Targets of other sets count as not shown: the overview tells what kind of image this is."""
    rows = []
    for case, label_map in zip(cases, labels.numpy(), strict=True):
        there = set(np.unique(label_map).tolist())
        row = []
        for name in targets:
            values = case.values.get(name)
            row.append(0 if values is None else 1 if there & set(values) else 0 if case.exhaustive else -1)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.long)


def clicks(truth: Tensor, rng: random.Random, rate: float) -> tuple[Tensor, Tensor]:
    """For some masks one click inside the truth: points [M, 1, 2] (x, y) in the full square, labels [M, 1] (1 or -1 for none)."""
    points, labels = torch.zeros(len(truth), 1, 2), -torch.ones(len(truth), 1)
    for i, mask in enumerate(truth):
        if rng.random() < rate and bool(mask.any()):
            inside = mask.nonzero()
            row, column = inside[rng.randrange(len(inside))].tolist()
            points[i, 0] = torch.tensor([2.0 * column, 2.0 * row])
            labels[i, 0] = 1.0
    return points, labels


def count_by_set(cases: Sequence[Case]) -> dict[str, int]:
    """Images per set, for the run record."""
    return dict(sorted(Counter(case.dataset for case in cases).items()))
