"""Fine-tuning of a round: a LoRA on the language model, the grounding decoder and what an image is introduced by; the encoder's
convolutions stay as they are, so their maps are made once.

A step takes pictures that were corrected and pictures that must not be forgotten (replay), in two halves whose gradients are
added. With several processes (`torchrun`) gradients are averaged parameter by parameter, also where a process had nothing to
learn of one, so that none waits for another.
"""

from __future__ import annotations

import pickle
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medsegr.model.encoder import Trunk
from medsegr.model.losses import LossWeights
from medsegr.model.medsegr import Batch, MedSegR
from medsegr.model.question import SentenceEncoder
from medsegr.qa.schema import Conversation
from medsegr.rounds.features import FeatureCase, stack
from medsegr.rounds.held import Held, outlines_to_hold, truth_or_held
from medsegr.rounds.phantoms import PHANTOM
from medsegr.rounds.schedule import Schedule, ScheduleOptions
from medsegr.training.batches import Sampling, batch_of
from medsegr.training.images import Case

SAVE_S = 60.0
"""The state of a training is kept this often."""
SETTLED = 1 / 3
"""How often a structure is drawn that the champion has learnt, beside one with new corrections."""
ALIKE = 4.0
"""How often replay of a corrected modality is drawn, beside that of others."""
NAMING_PICTURES = 12
"""A new structure is named by answers about this many pictures."""


@dataclass(frozen=True)
class FinetuneOptions:
    """How a round is trained. It ends after `steps`, or after `minutes` if that is sooner (0: no such limit). `anchor` pulls the
    weights back to where they began (L2-SP); `full` trains the whole language model in place of a LoRA; after `patience` steps
    without progress on what was corrected it ends early (0: never). At the end every weight goes only `blend` of the way from
    where it began (1: all of it), but for the rows of new structures: what lies between a model and its fine-tuned self forgets
    less at little cost (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022)."""

    steps: int = 300
    minutes: float = 3.5
    learning_rate: float = 8e-4
    lora_rank: int = 8
    full: bool = False
    images: int = 6
    replay_images: int = 6
    masks: int = 18
    anchor: float = 0.0
    blend: float = 1.0
    warmup_steps: int = 20
    patience: int = 100
    seed: int = 1
    bf16: bool = True
    loss: LossWeights = LossWeights(dice=1.0, names=3.0)


class Pool:
    """Draws structures, by `weights` (each equally often without), then evenly among the pictures that show the one drawn; and
    what is asked about these."""

    def __init__(
        self, features: Sequence[FeatureCase], seed: int, weights: Mapping[str, float] | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.groups: dict[str, list[FeatureCase]] = defaultdict(list)
        for one in features:
            for name in sorted(one.case.present) or [""]:
                self.groups[name].append(one)
        self.names = sorted(self.groups)
        self.weights = [weights.get(name, 1.0) if weights else 1.0 for name in self.names]
        self._drawn: deque[str] = deque()

    def draw(self, count: int) -> list[FeatureCase]:
        """`count` pictures, some perhaps twice."""
        return self._pictures(self.rng.choices(self.names, self.weights, k=count))

    def draw_of(self, name: str, count: int) -> list[FeatureCase]:
        """The same for one structure; none where no picture shows it."""
        return self._pictures([name] * count if name in self.groups else [])

    def _pictures(self, names: Sequence[str]) -> list[FeatureCase]:
        self._drawn = deque(names)
        return [self.rng.choice(self.groups[name]) for name in names]

    def conversations(self, case: Case, sampling: Sampling) -> list[Conversation]:
        """Some of what is asked about a picture; one is about the structure that it was drawn for. Asked in the order in which
        the pictures were drawn."""
        name = self._drawn.popleft() if self._drawn else ""
        count = min(sampling.conversations, len(case.conversations))
        about = [c for c in case.conversations if any(t.label == name for u in c.turns for t in u.targets)]
        first = self.rng.sample(about, min(1, len(about), count))
        rest = [c for c in case.conversations if c not in first]
        return first + self.rng.sample(rest, count - len(first))


def fresh_first(features: Sequence[FeatureCase], fresh: Collection[str]) -> dict[str, float]:
    """How often structures of corrected pictures are drawn: those that are not `fresh` less often, where some are."""
    rest = SETTLED if fresh else 1.0
    return {name: 1.0 if name in fresh else rest for one in features for name in one.case.present}


def across_sets(features: Sequence[FeatureCase], modalities: Collection[str] = ()) -> dict[str, float]:
    """How often structures of replay are drawn: a set with sixteen structures eight times as often as a set with one, or nobody
    would ask for the one; sets of the `modalities` that were corrected `ALIKE` times as often, since what looks like the
    corrected pictures is what a round overwrites. Phantoms are drawn for what others show: they teach no set of their own."""
    sets: dict[str, set[str]] = defaultdict(set)
    alike = set()
    for one in features:
        if one.case.dataset == PHANTOM:
            continue
        sets[one.case.dataset] |= one.case.present
        if modality_of(one) in modalities:
            alike.add(one.case.dataset)
    shares: dict[str, float] = defaultdict(float)
    for dataset, names in sets.items():
        for name in names:
            shares[name] += len(names) ** -0.25 * (ALIKE if dataset in alike else 1.0)
    return dict(shares)


def modality_of(feature: FeatureCase) -> str:
    """What the questions about a picture call its modality, "" where none is asked."""
    return next((c.modality for c in feature.case.conversations), "")


def prepare(
    model: MedSegR, options: FinetuneOptions, n_known: int, fresh: Collection[str] = ()
) -> list[nn.Parameter]:
    """Leave gradients to what a round trains; of tables with a row per structure, the first `n_known` rows stay as they are,
    but for those of `fresh` structures: on another scanner's images they may have to be told apart anew."""
    model.requires_grad_(False)
    if options.full:
        model.context.merge_lora()
        model.context.requires_grad_(True)
    else:
        if not hasattr(model.context.model, "peft_config"):
            model.context.add_lora(options.lora_rank, 2 * options.lora_rank)
        for name, parameter in model.context.named_parameters():
            parameter.requires_grad_("lora_" in name)
        model.context.question_project.requires_grad_(True)
        model.context.question_norm.requires_grad_(True)
    encoder = model.encoder
    trained: list[nn.Module] = [
        encoder.context, encoder.context_norm, encoder.embed, encoder.overview,
        model.grounding.project, model.grounding.decoder,
    ]  # fmt: skip
    for part in trained:
        part.requires_grad_(True)
    overview = encoder.overview
    overview.study[0].requires_grad_(False)
    settled = torch.tensor([name not in fresh for name in model.config.targets[:n_known]], dtype=torch.bool)
    for table in tables(model):
        hook: Any = table.register_hook
        hook(_but_for(settled))
    return [p for p in model.parameters() if p.requires_grad]


def tables(model: MedSegR) -> list[Tensor]:
    """Weights with a row per structure; those of structures that a round brings nothing new about are not trained."""
    overview = model.encoder.overview
    return [
        overview.coarse_weight, overview.fine_weight, overview.bias, overview.trust, overview.names.weight,
        *overview.study[2].parameters(),
    ]  # fmt: skip


def finetune(
    model: MedSegR,
    encoder: SentenceEncoder | None,
    corrected: Sequence[FeatureCase],
    replay: Sequence[FeatureCase],
    options: FinetuneOptions,
    n_known: int,
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
    state: Path | None = None,
    fresh: Collection[str] = (),
) -> int:
    """Train `model` in place; returns the number of steps. Of what was corrected, structures that are `fresh` are drawn more
    often. Replay may be of another size than the corrected pictures. From the file `state` a training that was killed goes on;
    it is removed at the end."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    trained = prepare(model, options, n_known, fresh)
    start = [p.detach().clone() for p in trained]
    held = outlines_to_hold(model, replay, n_known) if options.replay_images else {}
    optimizer = torch.optim.AdamW(trained, lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    sampling = Sampling(conversations=4, row_tokens=220, masks=options.masks, other_image=0.0, click=0.1)
    done, before = _resume(state, trained, optimizer)
    draw = options.seed + rank + 7919 * done  # not the first pictures again
    pools = [(Pool(corrected, draw, fresh_first(corrected, fresh)), options.images)]
    if replay and options.replay_images:
        new = [one for one in corrected if one.case.present & set(fresh)]
        shares = across_sets(replay, {modality_of(one) for one in new or corrected})
        pools.append((Pool(replay, draw + 1000, shares), options.replay_images))
    schedule = Schedule(
        ScheduleOptions(options.steps, options.minutes, options.warmup_steps, options.patience)
    )
    began = saved = time.monotonic()
    model.train()
    model.encoder.eval()
    for step in range(done, options.steps):
        spent = before + (time.monotonic() - began) / 60
        rate = _least(schedule.rate(step, spent), trained[0].device)
        if rate <= 0:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * rate
        optimizer.zero_grad(set_to_none=True)
        shown: dict[str, float] = {}
        for which, (pool, count) in enumerate(pools):
            losses = _losses(model, encoder, pool, pool.draw(count), sampling, options, n_known, held)
            if losses and bool(torch.isfinite(losses["loss"])):
                torch.autograd.backward(losses["loss"] / len(pools))
            prefix = "" if which == 0 else "replay_"
            shown |= {f"{prefix}{name}": float(value.detach()) for name, value in losses.items()}
        for parameter, first in zip(trained, start, strict=True) if options.anchor else []:
            pull = 2 * options.anchor * (parameter.detach() - first)
            parameter.grad = pull if parameter.grad is None else parameter.grad + pull
        average_gradients(trained)
        norm = torch.nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], 1.0)
        if bool(torch.isfinite(norm)):
            optimizer.step()
        done = step + 1
        schedule.note(step, spent, shown.get("loss"))
        if on_step:
            on_step(done, options.steps, shown)
        if state and rank == 0 and time.monotonic() - saved > SAVE_S:
            _save(state, trained, optimizer, done, before + (time.monotonic() - began) / 60)
            saved = time.monotonic()
    _blend(trained, start, options.blend, tables(model))
    model.eval()
    _name_new(model, encoder, Pool(corrected, options.seed), sampling, n_known)
    if state and rank == 0:
        state.unlink(missing_ok=True)
    return done


def _save(
    path: Path, trained: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, done: int, minutes: float
) -> None:
    """Whole or not there."""
    work = path.with_suffix(".tmp")
    kept = {"weights": [p.detach().cpu() for p in trained], "optimizer": optimizer.state_dict()}
    torch.save({**kept, "done": done, "minutes": minutes}, work)
    work.replace(path)


def _resume(
    path: Path | None, trained: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Steps done and minutes spent by an earlier process, whose weights are taken over; (0, 0) where there is none that fits."""
    if path is None or not path.is_file():
        return 0, 0.0
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        return 0, 0.0  # cut off
    if [tuple(w.shape) for w in state["weights"]] != [tuple(p.shape) for p in trained]:
        return 0, 0.0
    with torch.no_grad():
        for parameter, weight in zip(trained, state["weights"], strict=True):
            parameter.copy_(weight)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["done"]), float(state["minutes"])


@torch.no_grad()
def _blend(
    trained: Sequence[nn.Parameter], start: Sequence[Tensor], share: float, apart: Sequence[Tensor]
) -> None:
    """Leave the weights `share` of the way from `start` to where they are; those in `apart` stay where they are."""
    kept = {id(parameter) for parameter in apart}
    for parameter, first in zip(trained, start, strict=True):
        if id(parameter) not in kept:
            parameter.copy_(torch.lerp(first, parameter, share))


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average over the processes, if there are several; a parameter that had no gradient in one counts as zero there."""
    if not dist.is_initialized():
        return
    world = dist.get_world_size()
    for parameter in parameters:
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        dist.all_reduce(gradient)
        parameter.grad = gradient / world


def _losses(
    model: MedSegR,
    encoder: SentenceEncoder | None,
    pool: Pool,
    drawn: Sequence[FeatureCase],
    sampling: Sampling,
    options: FinetuneOptions,
    n_known: int,
    held: Held,
) -> dict[str, Tensor]:
    """Of one half of a step; outlines of pictures in `held` are to stay. What answers ask the grounding for is held at the names
    of known structures, which stay as they are: else a prompt drifts towards that of a neighbour, and a premolar's outline spills
    into the next tooth."""
    trunk, batch = _batch(model, encoder, pool, drawn, sampling)
    batch = replace(batch, seg_target=batch.seg_target.where(batch.seg_target < n_known, -1))
    like = truth_or_held(batch, drawn, held)
    with torch.autocast(batch.seg_target.device.type, dtype=torch.bfloat16, enabled=options.bf16):
        return model.losses(model.encoder.read(trunk), batch, options.loss, like, as_answered=True)


def _batch(
    model: MedSegR,
    encoder: SentenceEncoder | None,
    pool: Pool,
    drawn: Sequence[FeatureCase],
    sampling: Sampling,
) -> tuple[Trunk, Batch]:
    """Maps of pictures that `pool` has drawn, and what is asked about them, on the model's device."""
    device = str(next(model.parameters()).device)
    trunk, labels = stack(drawn, device)
    batch = batch_of(model, encoder, pool, sampling, [d.case for d in drawn], torch.empty(0), labels)
    return trunk, Batch(**{name: getattr(batch, name).to(device) for name in batch.__dataclass_fields__})


@torch.no_grad()
def _name_new(
    model: MedSegR, encoder: SentenceEncoder | None, pool: Pool, sampling: Sampling, n_known: int
) -> None:
    """Name each new structure by the mean prompt of answers about it; later rounds hold on to that."""
    names = model.grounding.names.weight
    for number in range(n_known, len(names)):
        drawn = pool.draw_of(model.config.targets[number], NAMING_PICTURES)
        if drawn:
            trunk, batch = _batch(model, encoder, pool, drawn, sampling)
            prompts = model.prompts(model.encoder.read(trunk), batch)[batch.seg_target == number]
            if len(prompts):
                names[number] = prompts.flatten(1)[:, -names.shape[1] :].mean(
                    0
                )  # of a context, the last token


def _but_for(settled: Tensor) -> Callable[[Tensor], Tensor]:
    """A hook that leaves no gradient to the first rows where `settled` [n] is true."""

    def hook(gradient: Tensor) -> Tensor:
        kept = gradient.clone()
        kept[: len(settled)][settled.to(gradient.device)] = 0
        return kept

    return hook


def _least(here: float, device: torch.device) -> float:
    """The least of all processes' values, which NCCL compares on the GPU: all learn at one rate, and end at the same step."""
    if not dist.is_initialized():
        return here
    value = torch.tensor([here], device=device)
    dist.all_reduce(value, dist.ReduceOp.MIN)
    return float(value)
