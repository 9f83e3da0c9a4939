"""`medsegr qa`: build MedSeg-QA files from labelled folders, and check them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from medsegr.commands.qa_annotate import annotate
from medsegr.commands.qa_convert import export, import_
from medsegr.commands.qa_held_out import held_out
from medsegr.commands.qa_review import agreement, apply_reviews, review
from medsegr.commands.qa_stats import stats
from medsegr.errors import MedSegRError

if TYPE_CHECKING:
    from medsegr.qa.schema import Conversation

LICENCES = ("any", "permissive")

qa = typer.Typer(help="Build and check MedSeg-QA files.", no_args_is_help=True)
qa.command()(annotate)
qa.command()(review)
qa.command()(agreement)
qa.command("apply-reviews")(apply_reviews)
qa.command("import")(import_)
qa.command()(export)
qa.command()(stats)
qa.command("held-out")(held_out)


@qa.command()
def build(
    data_dir: Annotated[Path, typer.Argument(help="Folder of labelled sets, each with a dataset.json.")],
    out: Annotated[
        Path, typer.Argument(help="File to write (JSON Lines); image paths are relative to its folder.")
    ],
    count: Annotated[int, typer.Option(help="Conversations to write.")] = 30_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.")] = 1,
    licence: Annotated[
        str, typer.Option(help="any, or permissive to leave out non-commercial sets.")
    ] = "any",
) -> None:
    """Write COUNT conversations about the images of DATA_DIR, from templates and the knowledge base."""
    from medsegr.qa.builder import build_file

    if licence not in LICENCES:
        raise MedSegRError(f"Unknown licence class '{licence}': expected {' or '.join(LICENCES)}.")
    console = Console()
    with console.status("Writing questions and answers …"):
        written = build_file(data_dir, out, seed=seed, count=count, licence=licence)
    console.print(f"{written} conversations in {out}", soft_wrap=True)


@qa.command()
def check(
    file: Annotated[Path, typer.Argument(help="MedSeg-QA file (JSON Lines).")],
    show: Annotated[int, typer.Option(help="Problems to print.")] = 20,
) -> None:
    """Check FILE: schema, images, masks, phrases, splits, absent structures; exit code 1 if anything is wrong."""
    from medsegr.qa.checks import check_file
    from medsegr.qa.reader import read_qa

    console = Console()
    with console.status("Reading …"):
        problems = check_file(file)
    if problems:
        for problem in problems[:show]:
            console.print(problem, markup=False, highlight=False, soft_wrap=True)
        console.print(f"{len(problems)} problems, {min(show, len(problems))} shown.", style="red")
        raise typer.Exit(1)
    conversations = list(read_qa(file))
    console.print(_summary(conversations))
    console.print(f"{len(conversations)} conversations, no problem found.")


def _summary(conversations: Sequence[Conversation]) -> Table:
    """Turns of each kind, by split."""
    counts = Counter((c.split, turn.kind) for c in conversations for turn in c.turns)
    splits = sorted({split for split, _ in counts})
    table = Table("turns", *splits)
    for kind in sorted({kind for _, kind in counts}):
        table.add_row(kind, *(str(counts[split, kind]) for split in splits))
    return table
