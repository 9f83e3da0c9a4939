"""The stages of a pretraining run: what each trains, and what one step of it does.

`vision` trains encoder and mask decoder straight from the label maps; `language` then trains the rest on conversations, with the
vision part as it is (so its steps need no gradient through pixels); `joint` trains everything on conversations at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from medsegr.model.losses import LossWeights
from medsegr.model.medsegr import Batch, MedSegR, VisionBatch
from medsegr.model.question import SentenceEncoder
from medsegr.training.augment import Augmentation
from medsegr.training.batches import Sampler, Sampling, make_batch
from medsegr.training.vision import dice_by_set, make_vision_batch

AnyBatch = TypeVar("AnyBatch", Batch, VisionBatch)
STAGES = ("joint", "vision", "language")


@dataclass
class Feed:
    """Where a stage's steps come from."""

    sampler: Sampler
    sampling: Sampling
    ranges: Augmentation
    generator: torch.Generator
    encoder: SentenceEncoder | None
    device: str
    bf16: bool


def freeze(model: MedSegR, stage: str) -> None:
    """Leave gradients to what the stage trains. The overview's names and the image tokens' projection belong to language."""
    if stage == "joint":
        return
    words = [model.context, model.encoder.context, model.encoder.context_norm, model.grounding.project]
    words += [getattr(model.encoder.overview, name) for name in ("names", "facts", "norm")]
    if stage == "vision":
        for part in words:
            part.requires_grad_(False)
        return
    language = {
        name: p.requires_grad for name, p in model.context.named_parameters()
    }  # a LoRA freezes some of it
    model.requires_grad_(False)
    for part in words:
        part.requires_grad_(True)
    for name, p in model.context.named_parameters():
        p.requires_grad_(language[name])


def train_mode(model: MedSegR, stage: str) -> None:
    """Training mode, with frozen batch normalisation where the vision part is left as it is."""
    model.train()
    if stage == "language":
        model.encoder.eval()


def losses_of_a_step(model: MedSegR, feed: Feed, stage: str, weights: LossWeights) -> dict[str, Tensor]:
    """Draw a batch and run it forwards."""
    amp = torch.autocast(torch.device(feed.device).type, dtype=torch.bfloat16, enabled=feed.bf16)
    if stage == "vision":
        seen, sets = make_vision_batch(model, feed.sampler, feed.sampling, feed.ranges, feed.generator)
        with amp:
            losses = model.forward_vision(to_device(seen, feed.device), weights)
        feed.sampler.learnt(dice_by_set(seen, sets, losses.pop("pair_dice")))
        return losses
    batch = make_batch(model, feed.encoder, feed.sampler, feed.sampling, feed.ranges, feed.generator)
    with amp:
        found: dict[str, Tensor] = model(to_device(batch, feed.device), weights)
    return found


def to_device(batch: AnyBatch, device: str) -> AnyBatch:
    """The batch on another device."""
    return type(batch)(**{name: getattr(batch, name).to(device) for name in batch.__dataclass_fields__})
