"""`medsegr evaluate`: questions for the validation images of labelled folders, answered freely, scored and written down."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from medsegr.errors import MedSegRError
from medsegr.evaluation.harness import Case, as_row, evaluate, summarise
from medsegr.predictor import Predictor
from medsegr.qa.builder import evaluation_questions
from medsegr.qa.facts import load_knowledge
from medsegr.qa.reader import read_qa
from medsegr.qa.schema import Conversation


@dataclass(frozen=True)
class EvaluateOptions:
    """`data` (a folder of labelled sets) or `qa` (a MedSeg-QA file); `every` takes each n-th image of a set only."""

    out: Path
    data: Path | None = None
    qa: Path | None = None
    checkpoint: str = "embedded"
    split: str = "val"
    seed: int = 1
    every: int = 1
    threads: int = 0
    device: str = "cpu"
    scales: tuple[float, ...] = ()


def questions(options: EvaluateOptions) -> tuple[list[Conversation], Path]:
    """Conversations to be answered, grouped by image, and the folder their paths are relative to."""
    if options.qa is not None:
        found = [c for c in read_qa(options.qa) if c.split == options.split and c.review.status != "rejected"]
        root = options.qa.resolve().parent
    elif options.data is not None:
        found = evaluation_questions(options.data, load_knowledge(), split=options.split, seed=options.seed)
        root = options.data.resolve()
    else:
        raise MedSegRError("Give exactly one of --data and --qa.")
    if not found:
        raise MedSegRError(
            f"There is no question of split '{options.split}' in {options.qa or options.data}."
        )
    images = sorted({(c.dataset, c.image) for c in found})
    kept: set[str] = set()
    for name in {d for d, _ in images}:
        kept |= {image for _, image in [x for x in images if x[0] == name][:: options.every]}
    return sorted((c for c in found if c.image in kept), key=lambda c: (c.dataset, c.image, c.id)), root


def run(options: EvaluateOptions) -> dict[str, Any]:
    """Evaluate and write `metrics.json` and `per_case.csv` into `options.out`; returns the metrics."""
    if options.threads:
        torch.set_num_threads(options.threads)
    predictor = Predictor.from_pretrained(options.checkpoint, device=options.device)
    if options.scales:
        predictor.scales = options.scales
    conversations, root = questions(options)
    options.out.mkdir(parents=True, exist_ok=True)
    with Progress() as bar, (options.out / "per_case.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(Case.__dataclass_fields__))
        writer.writeheader()
        task = bar.add_task("answering", total=sum(len(c.turns) for c in conversations))

        def on_case(case: Case) -> None:
            writer.writerow(as_row(case))
            bar.advance(task)

        cases = evaluate(predictor, conversations, root, on_case)
    metrics = {
        "checkpoint": predictor.version,
        "split": options.split,
        "seed": options.seed,
        **summarise(cases),
    }
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return metrics
