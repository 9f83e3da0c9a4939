"""`medsegr doctor`: does this installation do what it should? Looks, measures and asks one question; changes nothing."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    checkpoint: Annotated[str, typer.Option(help="Checkpoint directory or preset name.")] = "embedded",
    device: Annotated[str, typer.Option(help="cpu or cuda: where the golden question is answered.")] = "cpu",
) -> None:
    """Check Python, packages, weights, machine and one golden question; exit code 1 if something is broken."""
    from medsegr.commands.checks import Check, Status, every_check

    console = Console()
    table = Table("check", "", "what was found", title="medsegr doctor")
    found: list[Check] = []
    with console.status("Looking …"):
        for check in every_check(checkpoint, device):
            found.append(check)
            table.add_row(
                check.name, f"[{COLOURS[check.status.value]}]{check.status.value}[/]", escape(check.detail)
            )
    console.print(table)
    if any(check.status is Status.FAIL for check in found):
        raise typer.Exit(1)
