"""Is the method better than what it was made from? Five rows on the same images, seen equally often, each with one thing changed.

    python benchmarks/baselines.py --data DATA --out runs/baselines [--images-seen N | --minutes-each M] [--every 3]

a  a U-Net per modality, told the target's name (no language at all)
b  LISA's recipe: no high-resolution skips, one prompt token, the state before `[SEG]`
c  the cross-attention head: the image attends to every token that was read
d  our model, told the target's name instead of the question
e  our model

b, c and e go through the vision and the language stage with equal steps and answer explicit questions freely; d is the vision
part of e. What is finished in OUT is not done again, what was interrupted goes on. The table is printed and written to
OUT/table.md and between the marks of --docs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from medsegr.evaluation.baselines.comparison import (
    COMPARED,
    HEAD,
    Row,
    around_marks,
    by_set,
    comparisons,
    head,
    markdown,
    put_between_marks,
    set_columns,
)
from medsegr.evaluation.baselines.questions import (
    AnsweredOutlines,
    Outlines,
    PromptedOutlines,
    ask,
    chosen,
    read_answers,
    write_answers,
)
from medsegr.evaluation.baselines.specialist_training import (
    SpecialistOptions,
    targets_by_modality,
    train_specialists,
)
from medsegr.evaluation.baselines.specialists import (
    OPTIONS,
    SpecialistConfig,
    SpecialistOutlines,
    load_specialists,
    save_specialists,
)
from medsegr.evaluation.journal import claim
from medsegr.evaluation.run import EvaluateOptions, questions
from medsegr.model.checkpoint import load_checkpoint, read_meta
from medsegr.model.losses import LossWeights
from medsegr.model.presets import ModelConfig
from medsegr.predictor import Predictor
from medsegr.qa.builder import build_file
from medsegr.qa.reader import read_qa
from medsegr.qa.schema import Conversation
from medsegr.training.batches import Sampling
from medsegr.training.images import load_cases
from medsegr.training.pretrain import PretrainOptions
from medsegr.training.pretrain import run as pretrain

IMAGES_SEEN = 6400
VISION_SHARE = 0.7
DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "encoder_channels": (16, 32, 64, 96, 128),
        "pixel_widths": (64, 64, 48, 24),
        "grounding_dim": 64,
        "context_dim": 128,
        "context_mlp_dim": 320,
    },
    "embedded": {},
}
"""What differs from the `embedded` preset, the same for b, c, d and e: "small" halves every width."""


@dataclass(frozen=True)
class Recipe:
    """A model that reads questions; `changes` are the fields of `ModelConfig` in which it differs from ours."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)


LISA = {"high_resolution_skips": False, "prompt_tokens": 1, "seg_state": "predicting"}
RECIPES = {
    "e": Recipe("our model"),
    "b": Recipe("LISA's recipe", LISA),
    "c": Recipe("cross-attention head", {"grounding_head": "cross_attention"}),
}
"""Ours first: with --minutes-each the others take as many steps as it took."""


@dataclass(frozen=True)
class Stage:
    """How a stage of b, c and e is run, after the shipped checkpoint (docs/experiments.md)."""

    name: str
    share: float
    learning_rate: float
    sampling: Sampling


STAGES = (
    Stage("vision", VISION_SHARE, 1.5e-3, Sampling(images=16, masks=64)),
    Stage("language", 1 - VISION_SHARE, 1.2e-3, Sampling(images=8, masks=24)),
)


class Run:
    """Everything that lies in OUT, made where it is missing."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out
        if options.threads:
            torch.set_num_threads(options.threads)
        kept = {
            name: getattr(options, name)
            for name in ("images_seen", "minutes_each", "image_size", "size", "conversations", "seed")
        }
        claim(self.out, {"data": str(options.data.resolve()), **kept})
        (self.out / "answers").mkdir(exist_ok=True)
        self.qa = self.out / "qa.jsonl"
        if not self.qa.is_file():
            build_file(options.data, self.qa, options.seed, options.conversations, splits=("train",))

    def checkpoint(self, key: str) -> Path:
        """The checkpoint of b, c or e after both stages."""
        vision: Path | None = None
        for stage in STAGES:
            out = self.out / f"{key}-{stage.name}"
            if not out.is_dir():
                pretrain(self._options(key, stage, out, vision))
            vision = out
        return out

    def _options(self, key: str, stage: Stage, out: Path, vision: Path | None) -> PretrainOptions:
        first = self.out / f"e-{stage.name}"
        timed = bool(self.options.minutes_each)
        if timed and key == "e":
            length: dict[str, Any] = {"minutes": self.options.minutes_each * stage.share, "warmup_steps": 20}
        else:
            steps = (
                int(read_meta(first)["training"]["steps"])
                if timed
                else max(1, round(self.options.images_seen * stage.share / stage.sampling.images))
            )
            length = {"steps": steps, "warmup_steps": 20 if timed else max(1, steps // 10)}
        return PretrainOptions(
            qa=(self.qa,), out=out, stage=stage.name, init_vision=vision, learning_rate=stage.learning_rate,
            sampling=stage.sampling, loss=LossWeights(dice=1.0), calibration_share=0.0, seed=self.options.seed,
            threads=self.options.threads, save_minutes=1.0, **length,
            overrides={**SIZES[self.options.size], "image_size": self.options.image_size, **RECIPES[key].changes},
        )  # fmt: skip

    def images_seen(self, key: str, stages: int = 2) -> int:
        """How many images the first stages of b, c or e drew."""
        done = (self.out / f"{key}-{stage.name}" for stage in STAGES[:stages])
        return sum(int(read_meta(path)["training"]["images"]) for path in done)

    def specialists(self) -> Path:
        """The U-Nets of row a: as many images as our model saw in both stages."""
        folder = self.out / "a-unet"
        if not (folder / OPTIONS).is_file():
            cases = load_cases(read_qa(self.qa), self.qa.resolve().parent, self.options.image_size)
            usual, images = ModelConfig(), self.images_seen("e")
            config = SpecialistConfig(
                targets_by_modality(cases), self.options.image_size, usual.pixel_mean, usual.pixel_std
            )
            state = SpecialistOptions(
                folder.with_name("a-unet.resume") / "state.pt", images, seed=self.options.seed
            )
            save_specialists(train_specialists(cases, config, state), folder, images)
        return folder

    def row(self, key: str, asked: list[Conversation], root: Path) -> Row:
        """Train what the row needs, ask it what it has not been asked and count."""
        if key == "a":
            nets, images = load_specialists(self.specialists())
            count = sum(p.numel() for p in nets.parameters())
            name, told = "U-Net per modality", "name"
            make: Callable[[], Outlines] = lambda: SpecialistOutlines(nets)  # noqa: E731
        elif key == "d":
            model = load_checkpoint(self.checkpoint("e")).model
            parts = (model.encoder, model.grounding)
            count, images = sum(p.numel() for m in parts for p in m.parameters()), self.images_seen("e", 1)
            name, told = "our model, vision part", "name"
            make = lambda: PromptedOutlines(model)  # noqa: E731
        else:
            checkpoint = self.checkpoint(key)
            count, images = int(read_meta(checkpoint)["parameters"]), self.images_seen(key)
            name, told = RECIPES[key].name, "question"
            make = lambda: AnsweredOutlines(Predictor.from_pretrained(checkpoint))  # noqa: E731
        path = self.out / "answers" / f"{key}-every-{self.options.every}.jsonl"
        if not path.is_file():
            write_answers(path, ask(make(), asked, root, f"row {key}"))
        return Row(name, told, images, count, tuple(read_answers(path)))

    def rows(self) -> dict[str, Row]:
        """All five, ours first."""
        found, root = questions(EvaluateOptions(self.out, self.options.data, seed=self.options.seed))
        asked = chosen(found, self.options.every)
        return {key: self.row(key, asked, root) for key in (*RECIPES, "d", "a")}

    def note(self, rows: dict[str, Row]) -> str:
        """What the figures are of."""
        ours, o = rows["e"].answers, self.options
        steps = [f"{int(read_meta(self.out / f'e-{s.name}')['training']['steps'])} {s.name}" for s in STAGES]
        return (
            f"{len(ours)} explicit questions about {len({a.image for a in ours})} validation images of "
            f"{len({(a.dataset, a.patient) for a in ours})} patients; {o.image_size} px, size '{o.size}', "
            f"{' and '.join(steps)} steps, seed {o.seed}."
        )


def table(title: str, columns: tuple[str, ...], lines: list[list[str]]) -> Table:
    """A table for the terminal."""
    made = Table(*columns, title=title)
    for line in lines:
        made.add_row(*line)
    return made


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--images-seen", type=int, default=IMAGES_SEEN, help="by each row, both stages together"
    )
    budget.add_argument(
        "--minutes-each", type=float, default=0.0, help="for ours; the others get as many steps"
    )
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--size", choices=tuple(SIZES), default="small", help="widths of b to e")
    parser.add_argument("--conversations", type=int, default=8000)
    parser.add_argument("--every", type=int, default=3, help="of the validation images of a set")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--docs", type=Path, default=DOCS, help="page whose table is replaced")
    return parser.parse_args()


def main() -> None:
    """Run, print and write."""
    options = arguments()
    around_marks(options.docs)  # better found missing before the run than after it
    run = Run(options)
    rows = run.rows()
    console = Console()
    console.print(table("Same images, seen equally often", HEAD, head(rows)))
    console.print(table("Paired comparisons", COMPARED, comparisons(rows)))
    console.print(table("Explicit Dice by set", set_columns(rows), list(by_set(rows))))
    text = markdown(rows, run.note(rows))
    (options.out / "table.md").write_text(text, encoding="utf-8")
    put_between_marks(options.docs, text)


if __name__ == "__main__":
    main()
