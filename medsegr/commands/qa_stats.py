"""`medsegr qa stats`: what MedSeg-QA files hold, and whether a patient or an image is in two splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from medsegr.qa.stats import Stats

SHOWN = 20


def stats(
    files: Annotated[list[Path], typer.Argument(help="MedSeg-QA files, counted as one collection.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
    hashes: Annotated[
        bool, typer.Option(help="Decode every image to find copies in other splits; else compare file names.")
    ] = True,
    knowledge: Annotated[
        Path | None, typer.Option(help="YAML file or folder that adds to the knowledge base.")
    ] = None,
) -> None:
    """Count what FILES hold; exit code 1 if a patient or an image is in two splits."""
    from medsegr.qa.facts import load_knowledge
    from medsegr.qa.stats import collect

    console = Console()
    errors = Console(stderr=True)
    with errors.status("Reading …"):
        found = collect(files, load_knowledge(knowledge), hashes)
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False, indent=1))
    else:
        _show(console, found)
    if found.leaks:
        raise typer.Exit(1)


def _show(console: Console, found: Stats) -> None:
    head = Table("conversations", "turns", "images", "patients", "facts held out")
    turns = sum(found.turns.values())
    head.add_row(
        str(found.conversations),
        str(turns),
        str(found.images),
        str(found.patients),
        f"{found.held_out_share:.0%}",
    )
    console.print(head)
    for title, counts in (
        ("split", found.splits),
        ("modality", found.modalities),
        ("dataset", found.datasets),
        ("licence", found.licences),
        ("review", found.reviews),
        ("turns of a conversation", {str(n): count for n, count in found.turns_per_conversation.items()}),
    ):
        console.print(_counts(title, "conversations", counts))
    console.print(_counts("kind of question", "turns", found.turns))
    console.print(_targets(found))
    for leak in found.leaks[:SHOWN]:
        console.print(leak.sentence(), style="red", markup=False, highlight=False, soft_wrap=True)
    if found.leaks:
        console.print(
            f"{len(found.leaks)} leaks between splits, {min(SHOWN, len(found.leaks))} shown.", style="red"
        )
    else:
        console.print("No patient and no image is in two splits.")


def _counts(title: str, unit: str, counts: Mapping[str, int]) -> Table:
    table = Table(title, unit)
    for name, number in counts.items():
        table.add_row(escape(name), str(number))
    return table


def _targets(found: Stats) -> Table:
    """How often each target is an answer, and in how many ways it is asked for without its name."""
    table = Table("target", "answers", "implicit phrasings", "facts", "held out")
    for name in dict.fromkeys((*found.targets, *found.variety)):
        variety = found.variety.get(name)
        more = (variety.phrasings, variety.facts, variety.held_out_facts) if variety else (0, 0, 0)
        table.add_row(escape(name), str(found.targets.get(name, 0)), *map(str, more))
    return table
