"""The command line `medsegr`: wires the commands together and turns errors of the user's into one line and exit code 2."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from medsegr import __version__
from medsegr.commands.ask import ask
from medsegr.commands.calibrate import calibrate
from medsegr.commands.card import card
from medsegr.commands.doctor import doctor
from medsegr.commands.evaluate import evaluate
from medsegr.commands.familiar import familiar
from medsegr.commands.golden import golden
from medsegr.commands.login import login
from medsegr.commands.models import models
from medsegr.commands.pretrain import pretrain
from medsegr.commands.qa import qa
from medsegr.commands.replay import replay
from medsegr.commands.rounds import rounds
from medsegr.commands.state import state_app
from medsegr.errors import MedSegRError

USER_ERROR = 2

app = typer.Typer(
    name="medsegr",
    help="Ask a medical image a question; get a sentence and a mask. Research use only, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # local variables may hold question text or patient data
)
app.command()(ask)
app.command()(doctor)
app.add_typer(qa, name="qa")
app.add_typer(login, name="login")
app.add_typer(rounds, name="rounds")
app.add_typer(models, name="models")
app.add_typer(state_app, name="state")
app.command()(pretrain)
app.command()(evaluate)
app.command(hidden=True)(golden)
app.command(hidden=True)(card)
app.command(hidden=True)(replay)
app.command(hidden=True)(familiar)
app.command(hidden=True)(calibrate)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Options that come before the command."""


def main() -> None:
    """Entry point of the installed script `medsegr`."""
    try:
        app()
    except MedSegRError as error:
        typer.echo(f"medsegr: {' '.join(str(error).split())}", err=True)
        sys.exit(USER_ERROR)
