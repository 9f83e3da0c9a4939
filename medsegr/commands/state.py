"""`medsegr state backup | restore | audit | withdraw | remove-patient`: what is done to a server's whole state folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medsegr.commands.models import DatabaseOption, StateOption, editor
from medsegr.errors import MedSegRError

if TYPE_CHECKING:
    from medsegr.rounds.database import Database
    from medsegr.rounds.withdrawals import Removal

state_app = typer.Typer(
    help="A server's state folder: back it up, restore it, check its audit, take corrections or a patient out.",
    no_args_is_help=True,
)
BROKEN = 1


@state_app.command("backup")
def backup_state(
    target: Annotated[Path, typer.Argument(help="Zip file to write; it is as confidential as the folder.")],
    state: StateOption,
    database: DatabaseOption = None,
) -> None:
    """Write the database, masks, training slices, versions and the patients' key to one file; the server may run on."""
    from medsegr.rounds.backup import backup

    made = backup(_open(state, database), target)
    typer.echo(f"{made.files} files, {made.bytes / 2**20:.1f} MiB, as of {made.created[:19]} UTC.")


@state_app.command("restore")
def restore_state(
    source: Annotated[Path, typer.Argument(help="What `medsegr state backup` wrote.")],
    state: Annotated[Path, typer.Option(help="Folder to restore into; it must be missing or empty.")],
) -> None:
    """Make a state folder of a backup; every file is checked."""
    from medsegr.rounds.backup import restore

    made = restore(source, state)
    typer.echo(f"{made.files} files of {made.created[:19]} UTC are back.")


@state_app.command("audit")
def audit_state(state: StateOption, database: DatabaseOption = None) -> None:
    """Check that no row of the audit was changed or lost; exit code 1 if one was."""
    from medsegr.rounds.audit import Audit

    audit = Audit(_open(state, database))
    broken = audit.verify()
    if broken is not None:
        typer.echo(f"Row {broken} of the audit is not as it was written.", err=True)
        raise typer.Exit(BROKEN)
    last = audit.entries(limit=1)
    typer.echo(
        f"All {last[0].id} rows are whole; the last hash is {last[0].hash}." if last else "No rows yet."
    )


@state_app.command("withdraw")
def withdraw_corrections(
    state: StateOption,
    why: Annotated[str, typer.Option(help="The reason; kept with the corrections.")],
    correction: Annotated[str | None, typer.Option(help="Id of one correction.")] = None,
    of_editor: Annotated[str | None, typer.Option(help="All corrections of this editor so far.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="With --of-editor: from this date or time on, UTC where it names no zone."),
    ] = None,
    database: DatabaseOption = None,
) -> None:
    """Use a correction, or those of an editor, no more, and name the versions that were trained on them."""
    from medsegr.rounds.withdrawals import read_time, withdraw, withdraw_editor

    if (correction is None) == (of_editor is None):
        raise MedSegRError("Name one correction with --correction, or an editor with --of-editor.")
    if since is not None and of_editor is None:
        raise MedSegRError("--since is about an editor's corrections; name the editor with --of-editor.")
    try:
        start = read_time(since) if since is not None else None
    except ValueError as error:
        raise MedSegRError(str(error).replace("`since`", "--since")) from None
    opened = _open(state, database)
    if correction is not None:
        _tell(withdraw(opened, correction, editor(), why))
    elif of_editor is not None:
        _tell(withdraw_editor(opened, of_editor, editor(), why, start))


@state_app.command("remove-patient")
def remove(
    state: StateOption,
    patient_id: Annotated[
        str, typer.Option(prompt=True, help="As DICOM, `patients.csv` or the image names it.")
    ],
    database: DatabaseOption = None,
) -> None:
    """Delete what is kept of a patient (slices, masks, texts), and name the versions that were trained on it."""
    from medsegr.rounds.removals import remove_named

    _tell(remove_named(_open(state, database), patient_id, editor()))


def _open(state: Path, database: str | None) -> Database:
    """The state, which must exist: a slip of the pen makes no new one."""
    from medsegr.rounds.database import DATABASE, Database

    if not state.is_dir():
        raise MedSegRError(f"{state} does not exist; a server's state folder is expected.")
    if not database and not (state / DATABASE).is_file():
        raise MedSegRError(
            f"{state} has no {DATABASE}; a server's state folder is expected, with --database if its database is Postgres."
        )
    return Database(state, database)


def _tell(removal: Removal) -> None:
    typer.echo(f"{len(removal.corrections)} corrections are out.")
    typer.echo(f"Versions trained on them: {', '.join(removal.versions) or 'none'}.")
