"""`medsegr models list | promote | rollback`: the model versions of a server's state folder, and who of them is in charge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from medsegr.rounds.registry import Registry

models = typer.Typer(
    help="Model versions of a server: list them, put one in charge, go back.", no_args_is_help=True
)

StateOption = Annotated[
    Path,
    typer.Option("--state", help="The server's state folder, as in `--conf state DIR`.", show_default=False),
]
CheckpointOption = Annotated[
    str, typer.Option("--checkpoint", help="The checkpoint that the server was started with.")
]
DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", help="Postgres URL, as in `--conf database URL`.", envvar="MEDSEGR_DATABASE"),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept with the change.")]
FOLLOWS = "A running server follows within seconds, without a restart."


@models.command("list")
def list_models(
    state: StateOption, checkpoint: CheckpointOption = "embedded", database: DatabaseOption = None
) -> None:
    """Print every version, the one in charge marked."""
    registry = open_registry(state, checkpoint, database)
    current = registry.current().name
    table = Table("", "version", "parent", "round", "registered (UTC)", "structures")
    for version in registry.versions():
        table.add_row(
            "*" if version.name == current else "",
            version.name,
            version.parent or "",
            str(version.round_id or ""),
            (version.created or "")[:19],
            str(len(version.targets)),
        )
    Console().print(table)


@models.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="Name of the version, as `medsegr models list` shows it.")],
    state: StateOption,
    checkpoint: CheckpointOption = "embedded",
    database: DatabaseOption = None,
    reason: ReasonOption = "",
) -> None:
    """Put VERSION in charge."""
    registry = open_registry(state, checkpoint, database)
    typer.echo(f"{registry.promote(version, editor(), reason).name} is in charge. {FOLLOWS}")


@models.command("rollback")
def rollback(
    state: StateOption,
    checkpoint: CheckpointOption = "embedded",
    database: DatabaseOption = None,
    reason: ReasonOption = "",
) -> None:
    """Put the version in charge that was before."""
    registry = open_registry(state, checkpoint, database)
    typer.echo(f"{registry.rollback(editor(), reason).name} is in charge again. {FOLLOWS}")


def open_registry(state: Path, checkpoint: str, database: str | None) -> Registry:
    """The registry of a state folder that exists; raises `MedSegRError`."""
    from medsegr.model.checkpoint import resolve
    from medsegr.rounds.database import Database
    from medsegr.rounds.errors import StoreError
    from medsegr.rounds.registry import Registry

    if not state.is_dir():
        raise StoreError(f"There is no state folder {state}; name the one that the server uses.")
    return Registry(Database(state, database), resolve(checkpoint))


def editor() -> str:
    """Who runs the command."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "command line"
