"""Steps that train the vision part alone: every known structure of every drawn image, straight from the label maps.

No language is involved, so an hour of a small machine shows the encoder many more images than conversations could.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medsegr.model.medsegr import MedSegR, VisionBatch
from medsegr.training.augment import Augmentation
from medsegr.training.batches import Sampler, Sampling, augmented, clicks, shown
from medsegr.training.images import Case

MIN_PIXELS = 6
"""Fewer pixels of the truth, at half the model's resolution, are not asked for."""


def make_vision_batch(
    model: MedSegR, sampler: Sampler, sampling: Sampling, ranges: Augmentation, generator: torch.Generator
) -> tuple[VisionBatch, list[str]]:
    """Draw and augment one step; returns it with the set of each image."""
    number = {name: i for i, name in enumerate(model.config.targets)}
    truth: list[NDArray[np.bool_]] = []
    while not truth:  # a step of nothing but images of healthy tissue teaches no outline
        cases = sampler.draw(sampling.images)
        rgb, labels = augmented(cases, ranges, generator, swap=True)
        image, target, truth, weight = _pairs(cases, labels.numpy(), number)
    masks = torch.from_numpy(np.stack(truth))
    chosen = _prompted(masks, sampler.rng, sampling.masks)
    points, point_labels = clicks(masks[chosen], sampler.rng, sampling.click)
    batch = VisionBatch(
        model.normalise(rgb),
        torch.tensor(image),
        torch.tensor(target),
        masks,
        torch.tensor(weight),
        chosen,
        points,
        point_labels,
        shown(cases, labels, model.config.targets),
    )
    return batch, [case.dataset for case in cases]


def _pairs(
    cases: Sequence[Case], labels: NDArray[np.uint8], number: Mapping[str, int]
) -> tuple[list[int], list[int], list[NDArray[np.bool_]], list[float]]:
    """Image row, number of the target, truth at half resolution and weight of every pair that can be judged: structures that are
    there, and those that are not where the labels are exhaustive. Elsewhere only what the image's conversations show is
    asked for: of a union of labels, some may not have been drawn."""
    image, target, truth, weight = [], [], [], []
    for row, case in enumerate(cases):
        kept: list[tuple[int, NDArray[np.bool_]]] = []
        for name, values in case.values.items():
            if name not in number or not (case.exhaustive or name in case.present):
                continue
            whole = np.isin(labels[row], values)
            small = whole[::2, ::2]
            if small.sum() >= MIN_PIXELS or (case.exhaustive and not whole.any()):
                kept.append((number[name], small))
        image += [row] * len(kept)
        target += [n for n, _ in kept]
        truth += [mask for _, mask in kept]
        weight += [max(len(kept), 1) ** -0.5] * len(kept)
    return image, target, truth, weight


def _prompted(masks: Tensor, rng: random.Random, count: int) -> Tensor:
    """`count` indices into the pairs: mostly of structures that are there."""
    weights = [1.0 if there else 0.2 for there in masks.flatten(1).any(1).tolist()]
    return torch.tensor(rng.choices(range(len(weights)), weights, k=count))


def dice_by_set(batch: VisionBatch, sets: Sequence[str], pair_dice: Tensor) -> dict[str, float]:
    """Mean hard Dice of the structures that are there, per set of the step."""
    found: dict[str, list[float]] = defaultdict(list)
    there = batch.truth.flatten(1).any(1).tolist()
    for row, value, present in zip(batch.image.tolist(), pair_dice.tolist(), there, strict=True):
        if present:
            found[sets[row]].append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}
