"""`medsegr rounds list | show | run`: the fine-tuning rounds of a server's state folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from medsegr.commands.models import CheckpointOption, DatabaseOption, StateOption, editor, open_registry

if TYPE_CHECKING:
    from medsegr.rounds.rounds_log import Round

rounds = typer.Typer(
    help="Rounds of fine-tuning on corrections: what they decided, and why; run one.", no_args_is_help=True
)
TRIGGER = "command line"


@rounds.command("list")
def list_rounds(state: StateOption, database: DatabaseOption = None) -> None:
    """Print every round with its end."""
    table = Table("round", "begun (UTC)", "by", "status", "what came of it")
    for found in _log(state, database).rounds():
        table.add_row(
            str(found.id),
            (found.started or found.created)[:19],
            found.editor,
            found.status.value,
            _said(found),
        )
    Console().print(table)


@rounds.command("show")
def show(
    number: Annotated[int, typer.Argument(help="Number of the round.")],
    state: StateOption,
    database: DatabaseOption = None,
) -> None:
    """Print one round with its options, data and decision, as JSON."""
    from dataclasses import asdict

    typer.echo(json.dumps(asdict(_log(state, database).get(number)), indent=1, ensure_ascii=False))


@rounds.command("run")
def run(
    state: StateOption,
    checkpoint: CheckpointOption = "embedded",
    database: DatabaseOption = None,
    minutes: Annotated[float, typer.Option(help="End a round that takes longer.")] = 30.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    processes: Annotated[int, typer.Option(min=1, help="Processes that share the training.")] = 1,
    reason: Annotated[str, typer.Option(help="Why; kept with the round.")] = "",
    resume: Annotated[int | None, typer.Option(help="Go on with this round, which was interrupted.")] = None,
) -> None:
    """Run a round now and wait for its end. A running server follows a version that is adopted, without a restart."""
    from medsegr.errors import MedSegRError
    from medsegr.rounds.policy import Policy
    from medsegr.rounds.rounds_log import RoundStatus
    from medsegr.rounds.starting import RoundStarter, device_of

    registry = open_registry(state, checkpoint, database)
    registry.check_trainable()
    starter = RoundStarter(registry.database, registry.base.directory)
    policy = Policy(max_minutes=minutes, device=device, processes=processes)
    options: dict[str, Any] = {
        "max_minutes": policy.max_minutes,
        "device": device_of(policy.device),
        "processes": policy.processes,
        "reason": reason,
    }
    champion = registry.current().name
    begun = (
        starter.go_on(resume) if resume is not None else starter.start(TRIGGER, editor(), options, champion)
    )
    typer.echo(f"Round {begun.id} runs; what it does is written to {starter.printed(begun.id)}.", err=True)
    try:
        ended = starter.wait(begun.id)
    except KeyboardInterrupt:
        ended = starter.cancel(begun.id, editor())
    if ended.status is RoundStatus.FAILED:
        raise MedSegRError(f"Round {ended.id} failed: {_said(ended)}")
    typer.echo(f"Round {ended.id} is {ended.status.value}. {_said(ended)}")


def _log(state: Path, database: str | None) -> Any:
    from medsegr.rounds.database import Database
    from medsegr.rounds.errors import StoreError
    from medsegr.rounds.rounds_log import RoundLog

    if not state.is_dir():
        raise StoreError(f"There is no state folder {state}; name the one that the server uses.")
    return RoundLog(Database(state, database))


def _said(round_: Round) -> str:
    return str(round_.error or round_.decision.get("sentence") or "")
