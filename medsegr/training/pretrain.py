"""`medsegr pretrain`: from MedSeg-QA files to a checkpoint directory, on a CPU (bf16) or a GPU; resumable."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from medsegr.errors import MedSegRError, QAFileError
from medsegr.model.checkpoint import save_checkpoint
from medsegr.model.losses import LossWeights
from medsegr.model.medsegr import MedSegR
from medsegr.qa.reader import read_qa
from medsegr.qa.schema import Conversation
from medsegr.training.augment import NONE, Augmentation
from medsegr.training.batches import Sampler, Sampling
from medsegr.training.calibrate import kept_for_calibration, recalibrate, without_kept_facts
from medsegr.training.card import model_card
from medsegr.training.images import load_cases
from medsegr.training.record import run_record
from medsegr.training.stages import STAGES, Feed, freeze, losses_of_a_step, train_mode
from medsegr.training.start import new_model, question_encoder
from medsegr.training.state import resume, save_state


@dataclass(frozen=True)
class PretrainOptions:
    """What a training run is given. One of `steps` and `minutes` ends it; the learning rate follows the same clock.

    `stage` is "vision" (encoder and mask decoder from label maps), "language" (the rest, vision as it is) or "joint".
    `overrides` are fields of `ModelConfig` that differ from the preset's.
    """

    qa: tuple[Path, ...]
    out: Path
    preset: str = "embedded"
    stage: str = "joint"
    init: Path | None = None
    init_vision: Path | None = None
    steps: int = 0
    minutes: float = 0.0
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.02
    seed: int = 1
    device: str = "cpu"
    bf16: bool = True
    threads: int = 0
    save_minutes: float = 5.0
    licence: str = "any"
    question_encoder: str = "minilm"
    lora_rank: int = 0
    augment: bool = True
    calibration_share: float = 0.05
    overrides: dict[str, Any] = field(default_factory=dict)
    loss: LossWeights = LossWeights()
    sampling: Sampling = Sampling()


def read_conversations(options: PretrainOptions) -> tuple[list[Conversation], Path]:
    """Training conversations of all files (one folder) that the licence allows and no reviewer rejected; raises `QAFileError`."""
    roots = {path.resolve().parent for path in options.qa}
    if len(roots) != 1:
        raise QAFileError(
            "The MedSeg-QA files of one run must lie in one folder, since image paths are relative to it."
        )
    found = [
        c
        for path in options.qa
        for c in read_qa(path)
        if c.split == "train" and c.review.status != "rejected"
    ]
    if options.licence == "permissive":
        found = [c for c in found if c.licence_class == "permissive"]
    if not found:
        raise QAFileError(
            f"No training conversation with licence '{options.licence}' in {', '.join(map(str, options.qa))}."
        )
    return found, roots.pop()


class Clock:
    """Progress of a run in [0, 1] by steps or by minutes of training, whichever was asked for."""

    def __init__(self, options: PretrainOptions) -> None:
        if bool(options.steps) == bool(options.minutes):
            raise MedSegRError("Give either --steps or --minutes (exactly one) to say how long to train.")
        self.options, self.step, self.seconds = options, 0, 0.0

    @property
    def progress(self) -> float:
        """Share of the run that is over."""
        return (
            self.step / self.options.steps
            if self.options.steps
            else self.seconds / (60 * self.options.minutes)
        )

    @property
    def rate(self) -> float:
        """Learning-rate factor: linear warm-up, then a cosine to zero."""
        return (
            min(1.0, (self.step + 1) / max(self.options.warmup_steps, 1))
            * 0.5
            * (1 + math.cos(math.pi * min(self.progress, 1.0)))
        )


def optimizer_for(model: MedSegR, options: PretrainOptions) -> torch.optim.AdamW:
    """AdamW; no weight decay on vectors (norms, biases)."""
    freeze(model, options.stage)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95))


def train_step(
    model: torch.nn.Module, losses: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """One optimizer step; returns the losses. A step whose loss or gradient is not finite is skipped and reported as such."""
    optimizer.zero_grad(set_to_none=True)
    if not bool(torch.isfinite(losses["loss"])):
        return {"skipped": 1.0}
    torch.autograd.backward(losses["loss"])
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not bool(torch.isfinite(norm)):
        optimizer.zero_grad(set_to_none=True)
        return {"skipped": 1.0}
    optimizer.step()
    return {"skipped": 0.0, **{name: float(value.detach()) for name, value in losses.items()}}


def run(options: PretrainOptions) -> Path:
    """Train and write the checkpoint `options.out`; goes on from `state.pt` in the folder `<out>.resume` when it exists."""
    if options.stage not in STAGES:
        raise MedSegRError(f"Unknown stage '{options.stage}': expected one of {', '.join(STAGES)}.")
    clock = Clock(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    np.random.seed(options.seed)
    conversations, root = read_conversations(options)
    model = new_model(options, conversations).to(options.device)
    model.config = replace(model.config, prompts_at_names=options.stage == "language")
    cases = load_cases(conversations, root, model.config.image_size)
    kept = [case for case in cases if kept_for_calibration(case, options.calibration_share)]
    cases = [case for case in cases if not kept_for_calibration(case, options.calibration_share)]
    if options.stage != "vision" and kept:
        cases = [without_kept_facts(case) for case in cases]
    if not cases:
        raise MedSegRError(
            f"All {len(kept)} images belong to patients kept out to fit the confidence; expected a smaller --calibration-share."
        )
    encoder = question_encoder(model.config) if options.stage != "vision" else None
    if encoder:  # once, in batches of like length; the loop then reads the encoder's cache
        encoder.encode(sorted({turn.question for c in conversations for turn in c.turns}, key=len))
    optimizer = optimizer_for(model, options)
    state_path = options.out.with_name(options.out.name + ".resume") / "state.pt"
    losses, level = resume(state_path, model, optimizer, clock)
    feed = Feed(
        Sampler(cases, options.seed + clock.step),
        options.sampling,
        Augmentation() if options.augment else NONE,
        torch.Generator().manual_seed(options.seed + clock.step),
        encoder,
        options.device,
        options.bf16,
    )
    feed.sampler.level |= level
    _loop(options, clock, model, feed, optimizer, state_path, losses)
    model.eval()
    meta = run_record(options, model, cases, clock, losses)
    save_checkpoint(model, options.out, meta, model_card(meta, conversations))
    if kept and options.stage != "vision":
        recalibrate(options.out, kept, options.device)
    return options.out


def _loop(
    options: PretrainOptions,
    clock: Clock,
    model: MedSegR,
    feed: Feed,
    optimizer: torch.optim.AdamW,
    state_path: Path,
    means: dict[str, float],
) -> None:
    """Train until the clock says so; `means` are the running means of the losses, brought up to date in place."""
    last_save = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with SummaryWriter(str(state_path.parent / "tensorboard")) as writer, Progress(*columns) as bar:
        task = bar.add_task("training", total=1000, completed=int(1000 * clock.progress))
        while clock.progress < 1:
            began = time.monotonic()
            train_mode(model, options.stage)
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * clock.rate
            losses = losses_of_a_step(model, feed, options.stage, options.loss)
            step = train_step(model, losses, optimizer)
            clock.step += 1
            clock.seconds += time.monotonic() - began
            for name, value in step.items():
                means[name] = 0.98 * means.get(name, value) + 0.02 * value
            bar.update(
                task,
                completed=int(1000 * clock.progress),
                description=" ".join(f"{k} {v:.3f}" for k, v in means.items()),
            )
            if clock.step % 20 == 0:
                for name, value in means.items():
                    writer.add_scalar(name, value, clock.step)
                _log(state_path.parent / "log.jsonl", clock, means)
            if time.monotonic() - last_save > 60 * options.save_minutes:
                save_state(state_path, model, optimizer, clock, means, feed.sampler.level)
                last_save = time.monotonic()
    save_state(state_path, model, optimizer, clock, means, feed.sampler.level)


def _log(path: Path, clock: Clock, means: dict[str, float]) -> None:
    """Append one line with the running means to the run's log."""
    line = {
        "step": clock.step,
        "seconds": round(clock.seconds, 1),
        **{k: round(v, 4) for k, v in means.items()},
    }
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
