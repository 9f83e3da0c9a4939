"""`medsegr pretrain`: from MedSeg-QA files to a checkpoint directory, on a CPU (bf16) or a GPU; resumable."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard import SummaryWriter

import medsegr
from medsegr.errors import MedSegRError, QAFileError
from medsegr.model.checkpoint import load_checkpoint, read_meta, resolve, save_checkpoint, with_calibration
from medsegr.model.losses import LossWeights
from medsegr.model.medsegr import Batch, MedSegR
from medsegr.model.presets import PRESETS, ModelConfig
from medsegr.model.question import SentenceEncoder, file_sha256, find_sentence_encoder
from medsegr.model.tokens import train_tokenizer
from medsegr.qa.reader import read_qa
from medsegr.qa.schema import Conversation
from medsegr.training.augment import NONE, Augmentation
from medsegr.training.batches import Sampler, Sampling, count_by_set, make_batch
from medsegr.training.calibrate import calibrate, kept_for_calibration
from medsegr.training.card import model_card
from medsegr.training.images import Case, load_cases

PERMISSIVE, NONCOMMERCIAL = "CC BY 4.0", "CC BY-NC-SA 4.0"


@dataclass(frozen=True)
class PretrainOptions:
    """What a training run is given. One of `steps` and `minutes` ends it; the learning rate follows the same clock.

    `overrides` are fields of `ModelConfig` that differ from the preset's.
    """

    qa: tuple[Path, ...]
    out: Path
    preset: str = "embedded"
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
    freeze_grounding: bool = False
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


def target_names(conversations: Sequence[Conversation]) -> tuple[str, ...]:
    """Every structure that has a mask, in order of first appearance by set: the fixed, append-only label list."""
    seen: dict[str, None] = {}
    for conversation in sorted(conversations, key=lambda c: (c.dataset, c.id)):
        for turn in conversation.turns:
            for target in turn.targets:
                seen.setdefault(target.label)
    return tuple(seen)


def new_model(options: PretrainOptions, conversations: Sequence[Conversation]) -> MedSegR:
    """Fresh weights of the preset, or those of `init`; `init_vision` lends only its encoder and mask decoder."""
    if options.init and options.init_vision:
        raise MedSegRError("Give at most one of --init and --init-vision.")
    if options.lora_rank and not options.init:
        raise MedSegRError("--lora-rank needs --init: a LoRA beside untrained weights learns little.")
    if options.init:
        model = load_checkpoint(options.init).model
        model.context.merge_lora()
        targets = tuple(dict.fromkeys((*model.config.targets, *target_names(conversations))))
        if targets != model.config.targets:
            model = with_targets(model, targets)
        if options.lora_rank:
            model.context.add_lora(options.lora_rank, 2 * options.lora_rank)
        return model
    config: ModelConfig = replace(
        PRESETS[options.preset],
        question_encoder=options.question_encoder,
        targets=target_names(conversations),
        **options.overrides,
    )
    texts = [turn.answer for c in conversations for turn in c.turns]
    if options.question_encoder == "scratch":
        texts += [turn.question for c in conversations for turn in c.turns]
    model = MedSegR(config, train_tokenizer(texts))
    if options.init_vision:
        source = load_checkpoint(options.init_vision).model
        same = source.config.targets == model.config.targets
        maps = {k: v for k, v in source.encoder.state_dict().items() if same or not k.startswith("overview.")}
        model.encoder.load_state_dict(maps, strict=same)
        model.grounding.decoder.load_state_dict(source.grounding.decoder.state_dict())
        model.grounding.prompt_encoder.load_state_dict(source.grounding.prompt_encoder.state_dict())
    return model


@torch.no_grad()
def with_targets(model: MedSegR, targets: tuple[str, ...]) -> MedSegR:
    """The same weights in a model that has more targets; what is there once per target begins fresh for the new ones."""
    wider = MedSegR(replace(model.config, targets=targets), model.context.tokenizer)
    weights = wider.state_dict()
    for name, known in model.state_dict().items():
        (weights[name][: len(known)] if known.ndim else weights[name]).copy_(known)
    return wider


def question_encoder(config: ModelConfig) -> SentenceEncoder | None:
    """The frozen sentence encoder of a configuration; None where the language model spells the question itself."""
    if config.question_encoder == "scratch":
        return None
    return SentenceEncoder(find_sentence_encoder(config.sentence_encoder, config.sentence_encoder_sha256))


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
    if options.freeze_grounding:
        model.encoder.requires_grad_(False)
        model.encoder.overview.requires_grad_(
            True
        )  # knows the targets by number, so it belongs to the language
        model.grounding.decoder.requires_grad_(False)
        model.grounding.prompt_encoder.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95))


def train_step(
    model: MedSegR, batch: Batch, optimizer: torch.optim.Optimizer, options: PretrainOptions
) -> dict[str, float]:
    """One optimizer step; returns the losses. A step whose loss or gradient is not finite is skipped and reported as such."""
    with torch.autocast(torch.device(options.device).type, dtype=torch.bfloat16, enabled=options.bf16):
        losses = model(batch, options.loss)
    optimizer.zero_grad(set_to_none=True)
    if not bool(torch.isfinite(losses["loss"])):
        return {"skipped": 1.0}
    losses["loss"].backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not bool(torch.isfinite(norm)):
        optimizer.zero_grad(set_to_none=True)
        return {"skipped": 1.0}
    optimizer.step()
    return {"skipped": 0.0, **{name: float(value.detach()) for name, value in losses.items()}}


def to_device(batch: Batch, device: str) -> Batch:
    """The batch on another device."""
    return Batch(**{name: getattr(batch, name).to(device) for name in Batch.__dataclass_fields__})


def run(options: PretrainOptions) -> Path:
    """Train and write the checkpoint `options.out`; goes on from `state.pt` in the folder `<out>.resume` when it exists."""
    clock = Clock(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    np.random.seed(options.seed)
    conversations, root = read_conversations(options)
    model = new_model(options, conversations).to(options.device)
    cases = load_cases(conversations, root, model.config.image_size)
    kept = [case for case in cases if kept_for_calibration(case, options.calibration_share)]
    cases = [case for case in cases if not kept_for_calibration(case, options.calibration_share)]
    if not cases:
        raise MedSegRError(
            f"All {len(kept)} images belong to patients kept out to fit the confidence; expected a smaller --calibration-share."
        )
    encoder = question_encoder(model.config)
    if encoder:  # once, in batches of like length; the loop then reads the encoder's cache
        encoder.encode(sorted({turn.question for c in conversations for turn in c.turns}, key=len))
    optimizer = optimizer_for(model, options)
    state_path = options.out.with_name(options.out.name + ".resume") / "state.pt"
    losses = _resume(state_path, model, optimizer, clock)
    _loop(options, clock, model, cases, encoder, optimizer, state_path, losses)
    model.eval()
    meta = run_record(options, model, cases, clock, losses)
    save_checkpoint(model, options.out, meta, model_card(meta, conversations))
    if kept:
        slope, offset, count = calibrate(options.out, kept, options.device)
        model.config = with_calibration(model.config, slope, offset)
        meta["calibration"] = {
            "patients_kept_out": len({c.patient_id for c in kept}),
            "findings": count,
            "slope": slope,
            "offset": offset,
        }
        save_checkpoint(model, options.out, meta, model_card(meta, conversations))
    return options.out


def _loop(
    options: PretrainOptions,
    clock: Clock,
    model: MedSegR,
    cases: Sequence[Case],
    encoder: SentenceEncoder | None,
    optimizer: torch.optim.AdamW,
    state_path: Path,
    means: dict[str, float],
) -> None:
    """Train until the clock says so; `means` are the running means of the losses, brought up to date in place."""
    sampler = Sampler(cases, options.seed + clock.step)
    generator = torch.Generator().manual_seed(options.seed + clock.step)
    ranges = Augmentation() if options.augment else NONE
    last_save = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with SummaryWriter(str(state_path.parent / "tensorboard")) as writer, Progress(*columns) as bar:
        task = bar.add_task("training", total=1000, completed=int(1000 * clock.progress))
        while clock.progress < 1:
            began = time.monotonic()
            model.train()
            if options.freeze_grounding:
                model.encoder.eval()
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * clock.rate
            batch = to_device(
                make_batch(model, encoder, sampler, options.sampling, ranges, generator), options.device
            )
            step = train_step(model, batch, optimizer, options)
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
                _save_state(state_path, model, optimizer, clock, means)
                last_save = time.monotonic()
    _save_state(state_path, model, optimizer, clock, means)


def _log(path: Path, clock: Clock, means: dict[str, float]) -> None:
    """Append one line with the running means to the run's log."""
    line = {
        "step": clock.step,
        "seconds": round(clock.seconds, 1),
        **{k: round(v, 4) for k, v in means.items()},
    }
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def _fingerprint(model: MedSegR) -> str:
    """Changes with anything that a saved state cannot be carried over: shapes of the weights, ids of the tokens."""
    shapes = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    vocabulary = sorted(model.context.tokenizer.get_vocab().items())
    return hashlib.sha256(repr((shapes, vocabulary)).encode()).hexdigest()


def _save_state(
    path: Path, model: MedSegR, optimizer: torch.optim.AdamW, clock: Clock, means: dict[str, float]
) -> None:
    """Write everything that a run needs to go on; the file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_suffix(".tmp")
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": clock.step,
            "seconds": clock.seconds,
            "losses": means,
            "fingerprint": _fingerprint(model),
        },
        work,
    )
    work.replace(path)


def _resume(path: Path, model: MedSegR, optimizer: torch.optim.AdamW, clock: Clock) -> dict[str, float]:
    """Take over a saved state, if there is one; returns the running means of its losses. Raises `MedSegRError`."""
    if not path.is_file():
        return {}
    state = torch.load(path, weights_only=True, map_location="cpu")
    if state.get("fingerprint", _fingerprint(model)) != _fingerprint(model):
        raise MedSegRError(
            f"{path.parent} holds a run with another model or other answers; remove it, or choose another --out."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    clock.step, clock.seconds = int(state["step"]), float(state["seconds"])
    return {name: float(value) for name, value in state.get("losses", {}).items()}


def weights_licence(options: PretrainOptions, cases: Sequence[Case]) -> str:
    """The licence that the images allow, and the weights that the run began with."""
    sources = [path for path in (options.init, options.init_vision) if path]
    free = {c.licence_class for case in cases for c in case.conversations} == {"permissive"}
    inherited = all(read_meta(resolve(path))["licence"] == PERMISSIVE for path in sources)
    return PERMISSIVE if free and inherited else NONCOMMERCIAL


def run_record(
    options: PretrainOptions, model: MedSegR, cases: Sequence[Case], clock: Clock, losses: dict[str, float]
) -> dict[str, Any]:
    """What is written to `meta.json`: enough to repeat the run and to know what the weights may be used for."""
    return {
        "name": options.preset,
        "version": f"{options.preset}-{medsegr.__version__}-{clock.step}",
        "licence": weights_licence(options, cases),
        "use": "research use only, not a diagnosis",
        "data": {
            "qa": {path.name: file_sha256(path) for path in options.qa},
            "images": count_by_set(cases),
            "licences": options.licence,
        },
        "training": {
            "began_with": {
                name: read_meta(resolve(path))["version"]
                for name, path in (("init", options.init), ("init_vision", options.init_vision))
                if path
            },
            "steps": clock.step,
            "images": clock.step * options.sampling.images,
            "minutes": round(clock.seconds / 60, 1),
            "seed": options.seed,
            "learning_rate": options.learning_rate,
            "loss": asdict(options.loss),
            "sampling": asdict(options.sampling),
            "augment": options.augment,
            "final_losses": {k: round(v, 4) for k, v in losses.items()},
        },
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "medsegr": medsegr.__version__,
        },
        "metrics": {},
    }
