"""`medsegr ask`: one image, one question and any follow-ups; prints the answers and can write masks and overlays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medsegr.errors import MedSegRError

if TYPE_CHECKING:
    from medsegr.commands.replies import Answered

MODALITIES = "CT, MR, XR, US, FUNDUS, DERM, PHOTO or MICRO"


def ask(
    image: Annotated[
        Path, typer.Argument(help="PNG, JPEG, NIfTI, NRRD or DICOM file, or a folder with one DICOM series.")
    ],
    question: Annotated[
        str, typer.Argument(help='In plain words; "" finds every structure that the model knows.')
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for answer.json, one mask per finding and overlay.png.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Checkpoint directory or preset name.")] = "embedded",
    modality: Annotated[
        str | None, typer.Option(help=f"What the image is, where its file does not say: {MODALITIES}.")
    ] = None,
    follow_up: Annotated[
        list[str] | None, typer.Option(help="A further question about the same image; may be repeated.")
    ] = None,
    slices: Annotated[
        str, typer.Option(help="Of a volume: all, one index such as 12, or a range such as 10-20.")
    ] = "all",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Ask IMAGE a QUESTION; prints the answer and what was found, with confidences and measurements."""
    from medsegr.commands.replies import ask_all, write_answer
    from medsegr.imaging import read_image
    from medsegr.predictor import Predictor

    console = Console()
    picture = read_image(image, modality)
    predictor = Predictor.from_pretrained(checkpoint, device=device)
    with console.status("Looking at the image …"):
        turns = ask_all(predictor, picture, [question, *(follow_up or [])], parse_slices(slices))
    for number, turn in enumerate(turns):
        _show(console, turn)
        if out is not None:
            folder = out if number == 0 else out / f"follow-up-{number}"
            write_answer(folder, turn, picture, image, predictor)
    if out is not None:
        console.print(f"Written to {out}", style="dim", markup=False, soft_wrap=True)
    console.print(
        f"Research use only. Weights {predictor.version}, {predictor.licence}.", style="dim", soft_wrap=True
    )


def parse_slices(text: str) -> range | None:
    """ "all" -> None, "12" -> range(12, 13), "10-20" -> range(10, 21); raises `MedSegRError`."""
    if text.strip().lower() == "all":
        return None
    first, dash, last = text.partition("-")
    if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
        raise MedSegRError(
            f"--slices is '{text}'; expected all, one index such as 12, or a range such as 10-20."
        )
    chosen = range(int(first), int(last if dash else first) + 1)
    if not chosen:
        raise MedSegRError(f"--slices is '{text}'; expected the lower index first.")
    return chosen


def _show(console: Console, turn: Answered) -> None:
    from medsegr.commands.replies import size_in_words

    console.print(
        f"Q  {turn.question or '(every known structure)'}", style="bold", markup=False, soft_wrap=True
    )
    console.print(f"A  {turn.reply.text}", markup=False, soft_wrap=True)
    if turn.reply.findings:
        table = Table("", "finding", "confidence", "size")
        for n, (finding, size) in enumerate(zip(turn.reply.findings, turn.sizes, strict=True), start=1):
            table.add_row(str(n), escape(finding.label), f"{finding.confidence:.0%}", size_in_words(size))
        console.print(table)
    else:
        console.print("Nothing was outlined.", style="dim")
    console.print(f"{turn.reply.latencies_ms.get('total_ms', 0.0) / 1e3:.2f} s\n", style="dim")
