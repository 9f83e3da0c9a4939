"""`medsegr evaluate`: free-generation figures of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and per_case.csv.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of labelled sets (each with dataset.json).")
    ] = None,
    qa: Annotated[Path | None, typer.Option(help="Or a MedSeg-QA file.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Checkpoint directory or preset name.")] = "embedded",
    split: Annotated[str, typer.Option(help="train or val.")] = "val",
    seed: Annotated[int, typer.Option(help="Chooses phrasings, held-out facts and absent structures.")] = 1,
    every: Annotated[int, typer.Option(help="Only each n-th image of a set.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = torch's choice.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Ask each image about every present structure, by name and by a held-out fact, and about one absent structure."""
    from medsegr.errors import MedSegRError
    from medsegr.evaluation.run import EvaluateOptions, run

    if (data is None) == (qa is None):
        raise MedSegRError("Give exactly one of --data and --qa.")
    console = Console()
    options = EvaluateOptions(
        out=out, data=data, qa=qa, checkpoint=checkpoint, split=split, seed=seed, every=every, threads=threads, device=device
    )  # fmt: skip
    for table in tables(run(options)):
        console.print(table)


def tables(metrics: dict[str, Any]) -> list[Table]:
    """What `metrics.json` says, for people."""
    head = Table(
        "figure",
        "explicit",
        "implicit, held-out fact",
        title=f"{metrics['checkpoint']}: {metrics['questions']} questions, split {metrics['split']}",
    )
    for key in ("dice", "emission", "t_acc", "named_right", "chose_target"):
        head.add_row(key, *(f"{metrics[kind][key]:.3f}" for kind in ("explicit", "implicit")))
    sets = Table(
        "set",
        "images",
        "explicit Dice",
        "implicit Dice",
        title="Dice by set (mean over targets with >= 3 images)",
    )
    for name, count in metrics["images"].items():
        found = [
            {**metrics[kind]["small_sets"], **metrics[kind]["sets"]}.get(name)
            for kind in ("explicit", "implicit")
        ]
        apart = "" if name in metrics["explicit"]["sets"] else " (apart)"
        sets.add_row(name + apart, str(count), *("-" if f is None else f"{f:.3f}" for f in found))
    absent = Table("absent structures", "N-acc", "questions")
    for kind in ("same_set", "elsewhere"):
        absent.add_row(kind, f"{metrics[f'n_acc_{kind}']:.3f}", str(metrics[f"questions_absent_{kind}"]))
    absent.add_row(
        "all, by name",
        f"{metrics['n_acc']:.3f}",
        str(sum(metrics[f"questions_absent_{k}"] for k in ("same_set", "elsewhere"))),
    )
    absent.add_row(
        "asked for by a held-out fact",
        f"{metrics['n_acc_by_held_out_fact']:.3f}",
        str(metrics["questions_absent_by_held_out_fact"]),
    )
    absent.add_row("[SEG] emission on present targets", f"{metrics['emission']:.3f}", "")
    return [head, sets, absent]
