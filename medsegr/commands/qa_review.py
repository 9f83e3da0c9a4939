"""`medsegr qa review`, `agreement` and `apply-reviews`: physicians judge a MedSeg-QA file, and what comes of it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from medsegr.errors import MedSegRError

LOCAL = ("127.0.0.1", "localhost")

FileArgument = Annotated[Path, typer.Argument(help="MedSeg-QA file (JSON Lines).")]
LogOption = Annotated[
    Path | None, typer.Option("--log", help="Where verdicts are kept; FILE.reviews.jsonl if not given.")
]


def review(
    file: FileArgument,
    reviewer: Annotated[str | None, typer.Option(help="Your name; the page asks if it is not given.")] = None,
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8010,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    log: LogOption = None,
) -> None:
    """Serve a page on which physicians accept, edit or reject the conversations of FILE."""
    import uvicorn

    from medsegr.qa.review.entries import clean_name
    from medsegr.qa.review.queue import ReviewQueue
    from medsegr.web.review import PREFIX, review_app

    name = clean_name(reviewer) if reviewer is not None else None
    queue = ReviewQueue(file, log)
    if not queue.conversations:
        raise MedSegRError(f"{file.name} holds no conversation; expected at least one to review.")
    listening = _listen(host, port)
    app = review_app(queue, name, only_local=host in LOCAL)
    shown = f"[{host}]" if ":" in host else host
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{len(queue.conversations)} conversations; verdicts go to {queue.log.path}", markup=False)
    if host not in LOCAL:
        console.print(
            "There is no login: everybody who reaches this address can read and judge.", style="yellow"
        )
    console.print(
        f"Review at http://{shown}:{listening.getsockname()[1]}{PREFIX} (Ctrl+C ends it)", markup=False
    )
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


def agreement(file: FileArgument, log: LogOption = None) -> None:
    """Print how far each pair of reviewers of FILE agrees: raw agreement and Cohen's kappa on accept, edit, reject."""
    from medsegr.qa.review.agreement import agreements, counts
    from medsegr.qa.review.entries import Verdict
    from medsegr.qa.review.log import ReviewLog, log_path_of

    path = log or log_path_of(file)
    entries = ReviewLog(path).entries()
    if not entries:
        raise MedSegRError(f"{path} holds no verdict yet; `medsegr qa review {file.name}` collects them.")
    by_reviewer = Table("reviewer", *Verdict, title="independent verdicts")
    for name, count in counts(entries).items():
        by_reviewer.add_row(name, *(str(count[verdict]) for verdict in Verdict))
    pairs = Table("reviewers", "shared", "raw agreement", "Cohen's kappa")
    for pair in agreements(entries):
        raw = "-" if pair.raw is None else f"{pair.raw:.3f}"
        kappa = "undefined" if pair.kappa is None else f"{pair.kappa:.3f}"
        pairs.add_row(f"{pair.first} and {pair.second}", str(pair.shared), raw, kappa)
    console = Console()
    console.print(by_reviewer)
    console.print(pairs if pairs.row_count else "Agreement needs a second reviewer.")


def apply_reviews(
    file: FileArgument,
    out: Annotated[Path, typer.Argument(help="MedSeg-QA file to write.")],
    reviewers: Annotated[int, typer.Option(help="Verdicts that a conversation needs.", min=1)] = 2,
    show: Annotated[int, typer.Option(help="Unsettled conversations to list.", min=0)] = 50,
    log: LogOption = None,
) -> None:
    """Write FILE to OUT with the status that its reviewers agree on and their edits; the log goes along as OUT's log."""
    from medsegr.qa.review.applying import apply_file
    from medsegr.qa.review.queue import ReviewQueue

    result = apply_file(ReviewQueue(file, log), out, reviewers)
    console = Console(soft_wrap=True, highlight=False)
    for dispute in result.disputes[:show]:
        console.print(f"{dispute.id}: stays auto ({dispute.why})", markup=False)
    if len(result.disputes) > show:
        console.print(f"… and {len(result.disputes) - show} more that stay auto")
    if result.outdated:
        console.print(
            f"{result.outdated} verdicts are about a text that the file no longer has; they were left out."
        )
    console.print(
        f"{result.accepted} accepted, {result.edited} edited, {result.rejected} rejected, "
        f"{len(result.disputes)} unsettled, {result.waiting} waiting for verdicts; written to {out}",
        markup=False,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises `MedSegRError` if the address is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise MedSegRError(
            f"Cannot listen on {host} port {port} ({error.strerror or error}); expected a free port, such as --port 0."
        ) from error
