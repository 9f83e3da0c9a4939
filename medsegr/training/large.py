"""LoRA training of a large preset on MedSeg-QA conversations: LISA's recipe (Lai et al. 2024) and what volumes need besides.

Trained are the LoRA, the rows of the markup tokens, the projection of `[SEG]` states and SAM's mask decoder; all else is frozen,
so SAM's embedding of an image is computed once and kept. A token is also decoded on other images of its set, where a presence
score learns whether what it stands for is there.
"""

from __future__ import annotations

import json
import math
import platform
import random
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

import medsegr
from medsegr.errors import MedSegRError, QAFileError
from medsegr.imaging import Picture, read_image, to_rgb
from medsegr.imaging.label_reading import read_label_map
from medsegr.model.large.adapter import load_large, new_large, save_adapter
from medsegr.model.large.model import LargeBatch, LargeMedSegR
from medsegr.model.large.presets import LargeConfig
from medsegr.model.losses import LossWeights
from medsegr.model.question import file_sha256
from medsegr.qa.schema import Conversation, Target
from medsegr.training.pretrain import PretrainOptions, read_conversations
from medsegr.training.record import NONCOMMERCIAL, PERMISSIVE
from medsegr.training.start import target_names


@dataclass(frozen=True)
class LargeOptions:
    """What a LoRA run is given. A step is `accumulate` times `batch` conversations, with at most `masks` decoded for each batch.

    `init` is an adapter to train on, otherwise `config` says what to begin with. An adapter is written every `save_every` steps.
    """

    qa: tuple[Path, ...]
    out: Path
    config: LargeConfig
    init: Path | None = None
    steps: int = 5000
    batch: int = 2
    accumulate: int = 10
    masks: int = 8
    learning_rate: float = 3e-4
    warmup_steps: int = 100
    seed: int = 1
    device: str = "cuda"
    licence: str = "any"
    checkpointing: bool = True
    kept_embeddings: int = 2000
    save_every: int = 500
    loss: LossWeights = LossWeights()


@dataclass
class ImageCase:
    """An image with everything asked about it; `mask` is its label map, `absent` what it is declared not to show."""

    image: str
    modality: str
    mask: str | None = None
    absent: set[str] = field(default_factory=set)
    conversations: list[Conversation] = field(default_factory=list)


def by_set(conversations: Sequence[Conversation]) -> dict[str, list[ImageCase]]:
    """Images by set; raises `QAFileError` where an image has several label maps."""
    sets: dict[str, dict[str, ImageCase]] = defaultdict(dict)
    for conversation in conversations:
        case = sets[conversation.dataset].setdefault(
            conversation.image, ImageCase(conversation.image, conversation.modality)
        )
        case.conversations.append(conversation)
        for turn in conversation.turns:
            masks = {t.mask for t in turn.targets} | ({case.mask} if case.mask else set())
            if len(masks) > 1:
                raise QAFileError(
                    f"{case.image} has several mask files; one label map per image is expected."
                )
            case.mask = next(iter(masks), None)
            case.absent.update(turn.absent if turn.kind == "absent_same_set" else ())
    return {name: list(cases.values()) for name, cases in sorted(sets.items())}


class Feed:
    """Draws batches: one set (by the root of its size), some of its images, a conversation about each."""

    def __init__(
        self, model: LargeMedSegR, sets: dict[str, list[ImageCase]], root: Path, options: LargeOptions
    ):
        self.model, self.sets, self.root, self.options = model, sets, root, options
        self.rng = random.Random(options.seed)
        self._embeddings: OrderedDict[str, Tensor] = OrderedDict()

    def draw(self) -> LargeBatch:
        """The next batch, on the model's device."""
        names = list(self.sets)
        name = self.rng.choices(names, [math.sqrt(len(self.sets[n])) for n in names])[0]
        cases = self.rng.sample(self.sets[name], min(self.options.batch, len(self.sets[name])))
        asked = [self.rng.choice(case.conversations) for case in cases]
        read = [self._read(case) for case in cases]
        pictures = [torch.from_numpy(rgb) for rgb, _ in read]
        inputs, labels = self.model.context.collate(
            pictures, [[(t.question, t.answer) for t in c.turns] for c in asked]
        )
        queries = [(row, t) for row, c in enumerate(asked) for turn in c.turns for t in turn.targets]
        found = int((labels == self.model.context.seg_id).sum())
        if found != len(queries):
            raise QAFileError(
                f"{', '.join(c.id for c in asked)}: {found} [SEG] tokens for {len(queries)} targets; expected one for each."
            )
        pairs = self._pairs(queries, cases, [values for _, values in read])
        truth = [self._truth(read[row][1], queries[q][1].value) for q, row in pairs]
        side = self.model.config.image_size // 4
        device = self.options.device
        return LargeBatch(
            {key: tensor.to(device) for key, tensor in inputs.items()},
            labels.to(device),
            torch.cat(
                [self._embedding(case.image, picture) for case, picture in zip(cases, pictures, strict=True)]
            ),
            torch.tensor([q for q, _ in pairs], dtype=torch.long, device=device),
            torch.tensor([row for _, row in pairs], dtype=torch.long, device=device),
            (torch.stack(truth) if truth else torch.zeros(0, side, side, dtype=torch.bool)).to(device),
        )

    def _read(self, case: ImageCase) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        picture = read_image(self.root / case.image, case.modality)
        if not isinstance(picture, Picture):
            raise QAFileError(
                f"{case.image} is a volume; training reads 2-D images: cut it into slices with `medsegr qa build`."
            )
        rgb = np.array(to_rgb(picture.pixels, case.modality))  # a copy of its own, as torch wants it
        if case.mask is None:
            return rgb, np.zeros(rgb.shape[:2], np.uint8)
        return rgb, read_label_map(self.root / case.mask, picture, case.mask).values

    def _pairs(
        self, queries: list[tuple[int, Target]], cases: list[ImageCase], values: list[NDArray[Any]]
    ) -> list[tuple[int, int]]:
        """(query, image row) to decode: each on its own image, and on those of the batch where the truth is known."""
        own = [(q, row) for q, (row, _) in enumerate(queries)]
        others = [
            (q, other)
            for q, (row, target) in enumerate(queries)
            for other, case in enumerate(cases)
            if other != row
            and (target.label in case.absent or bool(np.isin(values[other], target.value).any()))
        ]
        self.rng.shuffle(own)
        self.rng.shuffle(others)
        own = own[: self.options.masks]
        return own + others[: max(0, min(len(own), self.options.masks - len(own)))]

    def _truth(self, values: NDArray[Any], wanted: tuple[int, ...]) -> Tensor:
        """The target in SAM's square at a quarter of its side, where the decoder answers."""
        mask = torch.from_numpy(np.isin(values, wanted)).float()[None, None]
        rows, columns = self.model.grounding.filled(*values.shape)
        small = F.interpolate(mask, (max(1, rows // 4), max(1, columns // 4)), mode="nearest-exact")[0, 0]
        side = self.model.config.image_size // 4
        return F.pad(small, (0, side - small.shape[1], 0, side - small.shape[0])) > 0.5

    def forget(self) -> None:
        """Drop the embeddings that are kept."""
        self._embeddings.clear()

    def _embedding(self, image: str, picture: Tensor) -> Tensor:
        """SAM's embedding, from memory where the image was seen a while ago (2 MiB each at 1024²)."""
        if image not in self._embeddings:
            self._embeddings[image] = self.model.grounding.embed(picture).to("cpu", torch.float16)
            while len(self._embeddings) > max(1, self.options.kept_embeddings):
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(image)
        return self._embeddings[image].to(self.options.device)


def trained_parameters(model: LargeMedSegR) -> list[torch.nn.Parameter]:
    """LoRA, markup rows, projection, mask decoder."""
    return [p for p in model.parameters() if p.requires_grad]


def optimizer_step(
    model: LargeMedSegR, batches: Sequence[LargeBatch], optimizer: torch.optim.Optimizer, weights: LossWeights
) -> dict[str, float]:
    """Accumulate the gradients of `batches` and take one step; returns mean losses. A step that is not finite is skipped."""
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, float] = defaultdict(float)
    device = batches[0].labels.device.type
    for batch in batches:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            losses = model(batch, weights)
        torch.autograd.backward(losses["loss"] / len(batches))
        for name, value in losses.items():
            sums[name] += float(value.detach()) / len(batches)
    norm = torch.nn.utils.clip_grad_norm_(trained_parameters(model), 1.0)
    if not bool(torch.isfinite(norm)):
        optimizer.zero_grad(set_to_none=True)
        return {**sums, "skipped": 1.0}
    optimizer.step()
    return {**sums, "skipped": 0.0}


def start(options: LargeOptions, conversations: Sequence[Conversation]) -> LargeMedSegR:
    """The model to be trained, in training mode: base weights with a fresh LoRA, or an earlier adapter."""
    if options.init:
        model = load_large(options.init, options.device, merge=False).model
    else:
        model = new_large(options.config, options.device)
        model.context.add_lora()
    targets = tuple(dict.fromkeys((*model.config.targets, *target_names(conversations))))
    model.config = replace(model.config, targets=targets)
    if options.checkpointing:
        model.context.base.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def run_large(options: LargeOptions) -> Path:
    """Train and write the adapter directory `options.out`; `OUT.log.jsonl` keeps the losses. Raises `MedSegRError`."""
    if options.steps < 1 or options.batch < 1 or options.accumulate < 1:
        raise MedSegRError("steps, batch and accumulate must each be 1 or more for a large preset.")
    torch.manual_seed(options.seed)
    conversations, root = read_conversations(
        PretrainOptions(options.qa, options.out, licence=options.licence)
    )
    sets = by_set(conversations)
    model = start(options, conversations)
    feed = Feed(model, sets, root, options)
    optimizer = torch.optim.AdamW(
        trained_parameters(model), lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    losses: dict[str, float] = {}
    with options.out.with_name(f"{options.out.name}.log.jsonl").open("w", encoding="utf-8") as log:
        for step in track(range(options.steps), "training"):
            warm = min(1.0, (step + 1) / max(options.warmup_steps, 1))
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * warm * (1 - step / options.steps)
            batches = [feed.draw() for _ in range(options.accumulate)]
            losses = optimizer_step(model, batches, optimizer, options.loss)
            log.write(json.dumps({"step": step + 1, **{k: round(v, 4) for k, v in losses.items()}}) + "\n")
            log.flush()
            if step + 1 == options.steps or (step + 1) % options.save_every == 0:
                meta = _record(options, model, sets, step + 1, losses)
                save_adapter(model, options.out, meta, _card(meta, conversations))
    return options.out


def _record(
    options: LargeOptions,
    model: LargeMedSegR,
    sets: dict[str, list[ImageCase]],
    steps: int,
    losses: dict[str, float],
) -> dict[str, Any]:
    free = {c.licence_class for cases in sets.values() for case in cases for c in case.conversations} == {
        "permissive"
    }
    return {
        "name": model.config.preset,
        "version": f"{model.config.preset}-{medsegr.__version__}-{steps}",
        "licence": f"{PERMISSIVE if free else NONCOMMERCIAL}, and the terms of {model.config.base}",
        "use": "research use only, not a diagnosis",
        "data": {
            "qa": {path.name: file_sha256(path) for path in options.qa},
            "images": {name: len(cases) for name, cases in sets.items()},
            "licences": options.licence,
        },
        "training": {
            "stage": "lora",
            "began_with": str(options.init) if options.init else model.config.base,
            "steps": steps,
            "conversations": steps * options.batch * options.accumulate,
            "learning_rate": options.learning_rate,
            "seed": options.seed,
            "loss": asdict(options.loss),
            "final_losses": {k: round(v, 4) for k, v in losses.items()},
        },
        "parameters": sum(p.numel() for p in trained_parameters(model)),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "medsegr": medsegr.__version__,
        },
        "metrics": {},
    }


def _card(meta: dict[str, Any], conversations: Sequence[Conversation]) -> str:
    licences = {c.dataset: c.licence for c in conversations}
    rows = "\n".join(
        f"| {name} | {count} | {licences[name]} |" for name, count in meta["data"]["images"].items()
    )
    return f"""# MedSeg-R {meta["version"]}

**Research use only. Not a medical device, not a diagnosis.** Licence: {meta["licence"]}.

A LoRA, a projection and a SAM mask decoder ({meta["parameters"] / 1e6:.1f} million trained parameters) for
{meta["training"]["began_with"]}, trained for {meta["training"]["steps"]} steps on {meta["training"]["conversations"]}
conversations. Confidences are the decoder's own estimate of the Dice and were not calibrated on patients.

| set | images | licence |
| --- | --- | --- |
{rows}
"""
