"""`medsegr login add | list | remove`: who may use a server, by a file of tokens that `--conf login FILE` names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

login = typer.Typer(help="Who may use a server: a file of tokens, one for each user.", no_args_is_help=True)

FileOption = Annotated[
    Path, typer.Option("--file", "-f", help="Token file (JSON Lines, mode 0600), as in `--conf login FILE`.")
]
NameArgument = Annotated[
    str, typer.Argument(help="The user's name, as it stands beside questions and corrections.")
]


@login.command("add")
def add(
    name: NameArgument,
    file: FileOption,
    admin: Annotated[
        bool, typer.Option("--admin", help="May read everybody's questions, and the logs.")
    ] = False,
    days: Annotated[
        int | None, typer.Option(help="How long the token is good; for ever if not given.")
    ] = None,
) -> None:
    """Make a token for NAME and print it, this once: the file keeps its hash only."""
    from medsegr.web.login.tokens import TokenFile

    tokens = TokenFile(file)
    token = tokens.add(name, admin=admin, days=days)
    typer.echo(token)
    typer.echo(
        f"This is the token of {name}; it cannot be shown again. A running server knows it at once.", err=True
    )


@login.command("list")
def list_users(file: FileOption) -> None:
    """Print who has a token; the tokens themselves are not known."""
    from medsegr.web.login.tokens import TokenFile, today

    table = Table("user", "admin", "good until (UTC)")
    for entry in TokenFile(file).entries():
        until = entry.expires.isoformat() if entry.expires else "for ever"
        state = "" if entry.good_on(today()) else " (expired)"
        table.add_row(entry.user, "yes" if entry.admin else "no", until + state)
    Console().print(table)


@login.command("remove")
def remove(name: NameArgument, file: FileOption) -> None:
    """Take the token of NAME away; a running server refuses it, and the browsers it opened, from the next request on."""
    from medsegr.web.login.tokens import TokenFile

    TokenFile(file).remove(name)
    typer.echo(f"{name} is removed.", err=True)
