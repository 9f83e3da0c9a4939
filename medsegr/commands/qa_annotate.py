"""`medsegr qa annotate`: a language model writes MedSeg-QA conversations about labelled folders, and plain code checks them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medsegr.errors import MedSegRError

if TYPE_CHECKING:
    from medsegr.qa.annotate.backend import Backend


def annotate(
    data_dir: Annotated[Path, typer.Argument(help="Folder of labelled sets, each with a dataset.json.")],
    out: Annotated[
        Path, typer.Argument(help="File to write (JSON Lines); image paths are relative to its folder.")
    ],
    endpoint: Annotated[
        str | None, typer.Option(help="OpenAI-compatible base address, such as http://127.0.0.1:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model that the endpoint serves.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the endpoint's key.")
    ] = None,
    local: Annotated[
        Path | None, typer.Option(help="Directory of a transformers model, in place of an endpoint.")
    ] = None,
    count: Annotated[int, typer.Option(help="Targets to draw; each has up to three conversations.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed draws the same targets in the same order.")] = 1,
    concurrency: Annotated[int, typer.Option(help="Targets under way at a time (endpoint only).")] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for one answer of the endpoint.")] = 120.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply of a local model.")] = 768,
    licence: Annotated[
        str, typer.Option(help="any, or permissive to leave out non-commercial sets.")
    ] = "any",
    knowledge: Annotated[
        Path | None, typer.Option(help="YAML file or folder of your own knowledge base entries.")
    ] = None,
) -> None:
    """Let a language model write questions, answers and dialogues about COUNT targets of DATA_DIR.

    It is told modality, region, measurements of the outline and knowledge-base text: no image and no identifier leaves this
    machine. What fails a check is listed with its reason in OUT.rejected.jsonl. A run that was stopped goes on where it was.
    """
    from medsegr.qa.annotate.run import annotate_file

    backend = _backend(endpoint, model, api_key_env, local, timeout, max_new_tokens)
    console = Console()
    try:
        with _bar(console) as bar:
            task = bar.add_task("Annotating", total=None)
            summary = annotate_file(
                data_dir,
                out,
                backend,
                count=count,
                seed=seed,
                concurrency=1 if local else concurrency,
                licence=licence,
                extra_knowledge=knowledge,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    finally:
        backend.close()
    console.print(f"{summary.kept} conversations about {summary.draws} targets in {out}", soft_wrap=True)
    if summary.rejected:
        steps = ", ".join(f"{step} {number}" for step, number in summary.rejected.items())
        console.print(f"{sum(summary.rejected.values())} rejected, by step: {steps}", soft_wrap=True)


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def _backend(
    endpoint: str | None,
    model: str | None,
    api_key_env: str | None,
    local: Path | None,
    timeout_s: float,
    max_new_tokens: int,
) -> Backend:
    if (endpoint is None) == (local is None):
        raise MedSegRError("Expected either --endpoint with --model, or --local.")
    if local is not None:
        from medsegr.qa.annotate.local_backend import LocalBackend

        return LocalBackend(local, max_new_tokens)
    if endpoint is None or not model:
        raise MedSegRError("--endpoint needs --model, the name of a model that it serves.")
    if timeout_s <= 0:
        raise MedSegRError(f"--timeout is {timeout_s:g}; expected seconds above 0.")
    key = None
    if api_key_env is not None:
        key = os.environ.get(api_key_env, "").strip()
        if not key:
            raise MedSegRError(f"The environment variable {api_key_env} is not set; expected the key in it.")
    from medsegr.qa.annotate.http_backend import HttpBackend

    return HttpBackend(endpoint, model, key, timeout_s=timeout_s)
