"""`medsegr qa held-out`: the facts that training never uses, and how near each is to a fact that it does use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medsegr.errors import MedSegRError


def held_out(
    out: Annotated[Path | None, typer.Option(help="Markdown file to write as well.")] = None,
    knowledge: Annotated[
        Path | None, typer.Option(help="YAML file or folder that adds to the knowledge base.")
    ] = None,
) -> None:
    """List the facts held out for evaluation, each with the training fact that shares most words with it."""
    from medsegr.qa.facts import load_knowledge
    from medsegr.qa.held_out import held_out_facts, markdown

    console = Console()
    base = load_knowledge(knowledge)
    found = held_out_facts(base)
    table = Table("concept", "fact", "text", "overlap", "nearest training fact")
    for held in found:
        nearest = held.nearest.id if held.nearest else ""
        row = (held.concept.name, held.fact.id, held.fact.text, f"{held.overlap:.2f}", nearest)
        table.add_row(*map(escape, row))
    console.print(table)
    facts = sum(len(concept.facts) for concept in base.concepts.values())
    console.print(f"{len(found)} of {facts} facts are held out ({len(found) / facts:.0%}).")
    if out is not None:
        try:
            out.write_text(markdown(found), encoding="utf-8")
        except OSError as error:
            raise MedSegRError(f"{out} cannot be written: {error.strerror}.") from error
        console.print(f"Written to {out}", soft_wrap=True)
