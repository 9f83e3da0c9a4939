"""Trains the specialists on the label maps, sampling, augmentation and mask losses of the vision stage. Every drawn image goes to
the net of its modality; the nets share nothing else."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from medsegr.errors import MedSegRError
from medsegr.evaluation.baselines.specialists import SpecialistConfig, Specialists
from medsegr.model.losses import LossWeights, dice_loss, hard_dice, mask_bce
from medsegr.training.augment import Augmentation
from medsegr.training.batches import Sampler, augmented
from medsegr.training.images import Case

MIN_PIXELS = 24
"""Fewer pixels of the truth are not asked for: `vision.MIN_PIXELS` at full resolution."""


@dataclass(frozen=True)
class SpecialistOptions:
    """`images` are drawn in all, for all nets together; each net steps when `batch` of its own have come. The state is kept in
    `state` every `save_images` images."""

    state: Path
    images: int
    batch: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    seed: int = 1
    bf16: bool = True
    loss: LossWeights = LossWeights(dice=1.0)
    save_images: int = 1000


@dataclass(frozen=True)
class Pairs:
    """Structures that can be judged in a batch: row and output of each [M], truth [M, S, S] bool, weight [M]."""

    row: Tensor
    output: Tensor
    truth: Tensor
    weight: Tensor


def modality_of(case: Case) -> str:
    """The modality that the conversations about the image name."""
    return case.conversations[0].modality


def targets_by_modality(cases: Sequence[Case]) -> dict[str, tuple[str, ...]]:
    """The structures of the sets of each modality, by name; a modality of which nothing is drawn is left out."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for case in cases:
        found[modality_of(case)].update(dict.fromkeys(case.values))
    return {modality: tuple(sorted(names)) for modality, names in sorted(found.items()) if names}


def pairs_of(cases: Sequence[Case], labels: Tensor, names: Sequence[str]) -> Pairs:
    """The pairs of a batch with label maps [B, S, S], by the rules of the vision stage (`training.vision`): structures that are
    there, and those that are not where labels are exhaustive."""
    row, output, truth, weight = [], [], [], []
    for b, (case, values_here) in enumerate(zip(cases, labels.numpy(), strict=True)):
        kept = []
        for name, values in case.values.items():
            if not (case.exhaustive or name in case.present):
                continue
            mask = np.isin(values_here, values)
            if mask.sum() >= MIN_PIXELS or (case.exhaustive and not mask.any()):
                kept.append((names.index(name), mask))
        row += [b] * len(kept)
        output += [n for n, _ in kept]
        truth += [mask for _, mask in kept]
        weight += [max(len(kept), 1) ** -0.5] * len(kept)
    stacked = np.stack(truth) if truth else np.zeros((0, *labels.shape[1:]), dtype=bool)
    return Pairs(torch.tensor(row), torch.tensor(output), torch.from_numpy(stacked), torch.tensor(weight))


class SpecialistTrainer:
    """One optimizer per net and the queue of drawn images per modality."""

    def __init__(self, specialists: Specialists, cases: Sequence[Case], options: SpecialistOptions) -> None:
        self.specialists, self.options = specialists, options
        self.optimizers = {
            modality: torch.optim.AdamW(
                net.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
            )
            for modality, net in specialists.nets.items()
        }
        self.cases, self.drawn = cases, 0
        self.waiting: dict[str, list[Case]] = defaultdict(list)
        self._begin()

    def _begin(self) -> None:
        self.sampler = Sampler(self.cases, self.options.seed + self.drawn)
        self.generator = torch.Generator().manual_seed(self.options.seed + self.drawn)

    def resume(self) -> None:
        """Go on from the kept state, if there is one; raises `MedSegRError` if it is of another run. Images that waited for
        their batch do not count as drawn."""
        if not self.options.state.is_file():
            return
        state = torch.load(self.options.state, weights_only=True)
        if state["run"] != self._run():
            raise MedSegRError(
                f"{self.options.state} is the state of another run; expected one with the same images and options, or none."
            )
        self.specialists.load_state_dict(state["nets"])
        for modality, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][modality])
        self.drawn = int(state["drawn"])
        self._begin()
        self.sampler.level |= state["level"]

    def train(self) -> None:
        """Draw what is left of the run's images and step where a batch is full."""
        self.specialists.train()
        todo = range(self.drawn, self.options.images, self.options.batch)
        for _ in track(todo, description="specialists", disable=not todo):
            before = self.drawn
            self.drawn = min(before + self.options.batch, self.options.images)
            for case in self.sampler.draw(self.drawn - before):
                self.waiting[modality_of(case)].append(case)
            last = self.drawn == self.options.images
            for modality, queue in self.waiting.items():
                if queue and (last or len(queue) >= self.options.batch):
                    self.step(modality, queue)
                    queue.clear()
            if before // self.options.save_images != self.drawn // self.options.save_images or last:
                self._save()

    def step(self, modality: str, cases: Sequence[Case]) -> float:
        """One step of the modality's net; returns its loss, NaN where the images show nothing that can be judged."""
        if modality not in self.specialists.nets:
            return float("nan")
        rgb, labels = augmented(cases, Augmentation(), self.generator, swap=True)
        pairs = pairs_of(cases, labels, self.specialists.config.targets[modality])
        if not len(pairs.row):
            return float("nan")
        optimizer, weights = self.optimizers[modality], self.options.loss
        for group in optimizer.param_groups:
            group["lr"] = self.options.learning_rate * self._rate
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.options.bf16):
            outputs = self.specialists(modality, rgb)
        logits = outputs[pairs.row, pairs.output].float()
        bce, overlap = (f(logits, pairs.truth, pairs.weight) for f in (mask_bce, dice_loss))
        loss = weights.bce * bce + weights.dice * overlap
        optimizer.zero_grad(set_to_none=True)
        if bool(torch.isfinite(loss)):
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.specialists.nets[modality].parameters(), 1.0)
            optimizer.step()
        self.sampler.learnt(_dice_by_set(cases, pairs, hard_dice(logits, pairs.truth)))
        return float(loss.detach())

    @property
    def _rate(self) -> float:
        """A cosine from 1 to 0 over the run's images."""
        return 0.5 * (1 + math.cos(math.pi * min(self.drawn / self.options.images, 1.0)))

    def _run(self) -> str:
        """What a state must agree on."""
        config, options = self.specialists.config, self.options
        what = [dict(config.targets), config.image_size, config.channels, options.images, options.batch]
        return json.dumps([*what, options.learning_rate, options.seed, len(self.cases)])

    def _save(self) -> None:
        state = {
            "run": self._run(),
            "nets": self.specialists.state_dict(),
            "optimizers": {modality: o.state_dict() for modality, o in self.optimizers.items()},
            "drawn": self.drawn - sum(len(queue) for queue in self.waiting.values()),
            "level": dict(self.sampler.level),
        }
        self.options.state.parent.mkdir(parents=True, exist_ok=True)
        draft = self.options.state.with_suffix(".tmp")
        torch.save(state, draft)
        draft.replace(self.options.state)


def _dice_by_set(cases: Sequence[Case], pairs: Pairs, dice: Tensor) -> Mapping[str, float]:
    """Mean Dice of the structures that are there, per set of the step."""
    found: dict[str, list[float]] = defaultdict(list)
    there = pairs.truth.flatten(1).any(1).tolist()
    for row, value, present in zip(pairs.row.tolist(), dice.tolist(), there, strict=True):
        if present:
            found[cases[row].dataset].append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def train_specialists(
    cases: Sequence[Case], config: SpecialistConfig, options: SpecialistOptions
) -> Specialists:
    """Fresh nets, or those of the kept state, trained to the end of the run."""
    torch.manual_seed(options.seed)
    trainer = SpecialistTrainer(Specialists(config), cases, options)
    trainer.resume()
    trainer.train()
    return trainer.specialists.eval()
