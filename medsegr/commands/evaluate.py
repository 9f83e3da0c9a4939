"""`medsegr evaluate`: free-generation figures of a checkpoint, and a report that can be passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def evaluate(
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for metrics.json, per_case.csv, report.html and the masks that were drawn."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder of labelled sets (each with dataset.json).")
    ] = None,
    qa: Annotated[
        list[Path] | None, typer.Option(help="Or a MedSeg-QA file; may be given several times.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Checkpoint directory or preset name.")] = "embedded",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    seed: Annotated[int, typer.Option(help="Chooses phrasings, held-out facts and absent structures.")] = 1,
    every: Annotated[int, typer.Option(min=1, help="Only each n-th image of a set.")] = 1,
    paraphrases: Annotated[
        int, typer.Option(min=0, help="Put each question about one structure in so many further wordings.")
    ] = 0,
    abilities: Annotated[
        bool,
        typer.Option(
            "--abilities",
            help="With --data: ask for everything that is seen, comparisons, counts, sides, reasons, neighbours and follow-ups.",
        ),
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = torch's choice.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Ask each image the questions of --qa, or with --data about every present structure by name and by a held-out fact and about
    one absent structure. If interrupted, the same command goes on where it stopped."""
    from medsegr.errors import MedSegRError
    from medsegr.evaluation.run import EvaluateOptions, run

    if (data is None) == (not qa):
        raise MedSegRError("Give exactly one of --data and --qa.")
    console = Console()
    options = EvaluateOptions(
        out=out, data=data, qa=tuple(qa or ()), checkpoint=checkpoint, split=split, seed=seed, every=every,
        paraphrases=paraphrases, abilities=abilities, threads=threads, device=device,
    )  # fmt: skip
    for table in tables(run(options)):
        console.print(table)
    console.print(f"Everything, with pictures: {out / 'report.html'}", soft_wrap=True, highlight=False)


def tables(metrics: dict[str, Any]) -> list[Table]:
    """What `metrics.json` says, for people."""
    if metrics["abilities"]:
        return [_abilities(metrics)]
    return [_head(metrics), _kinds(metrics), _sets(metrics), _absent(metrics)]


def _head(metrics: dict[str, Any]) -> Table:
    from medsegr.evaluation.report import interval

    head = Table(
        "figure",
        "explicit",
        "implicit, held-out fact",
        title=f"{metrics['checkpoint']}: {metrics['questions']} questions, split {metrics['split']}",
    )
    for key in ("dice", "emission", "t_acc", "named_right", "chose_target"):
        head.add_row(key, *(f"{metrics[kind][key]:.3f}" for kind in ("explicit", "implicit")))
    limits = [interval(metrics[k]["dice_low"], metrics[k]["dice_high"]) for k in ("explicit", "implicit")]
    head.add_row("dice, 95 % interval over patients", *(text or "-" for text in limits))
    return head


def _kinds(metrics: dict[str, Any]) -> Table:
    from medsegr.evaluation.report import figure_text

    names = ("dice", "giou", "t_acc", "n_acc")
    kinds = Table("kind of question", "n", title="Plain means over questions (95 % interval over patients)")
    for figure in names:
        kinds.add_column(figure, no_wrap=True)
    for name, group in {**metrics["by_kind"], **metrics["by_turn"], "all": metrics["overall"]}.items():
        kinds.add_row(name, str(group["n"]), *(figure_text(group, figure) for figure in names))
    return kinds


def _abilities(metrics: dict[str, Any]) -> Table:
    names = ("dice", "measured", "listed", "reason", "chose")
    found = Table(
        "kind of question",
        "n",
        *names,
        title=f"{metrics['checkpoint']}: abilities, plain means over questions",
    )
    found.columns[0].no_wrap = True

    def value(group: dict[str, Any], name: str) -> str:
        figure = group["figures"].get(name)
        return f"{figure['value']:.3f}" if figure else "-"

    for kind, group in metrics["by_kind"].items():
        found.add_row(kind, str(group["n"]), *(value(group, name) for name in names))
    for turn, row in metrics["follow_ups"].items():
        found.add_row(
            f"{turn} of three by name", str(row["n"]), f"{row['dice']:.3f}", *[""] * (len(names) - 1)
        )
    return found


def _sets(metrics: dict[str, Any]) -> Table:
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
    return sets


def _absent(metrics: dict[str, Any]) -> Table:
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
    calibration, paraphrases = metrics["calibration"], metrics["paraphrases"]
    absent.add_row("calibration error of the confidence", f"{calibration['ece']:.3f}", str(calibration["n"]))
    if paraphrases["n"]:
        absent.add_row("paraphrase consistency", f"{paraphrases['value']:.3f}", str(paraphrases["n"]))
    return absent
