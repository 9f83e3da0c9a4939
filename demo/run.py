"""`make demo`: six questions to a real MONAI Label server, answers and times on the screen, one contact sheet on disk."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from questions import QUESTIONS, Answer, ask
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from server import Server, ServerError
from sheet import contact_sheet
from studies import Studies, prepare, write_dicom

from medsegr.commands.replies import size_in_words
from medsegr.errors import MedSegRError
from medsegr.evaluation.metrics import dice
from medsegr.imaging import read_image

WEAK_DICE = 0.7
VIEWER = "http://127.0.0.1:8000/ohif"
"""OHIF of a server that `make serve` starts."""


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), help="folder for everything that the demo writes"
    )
    parser.add_argument("--checkpoint", default="embedded", help="checkpoint directory or preset name")
    options = parser.parse_args()
    console = Console()
    out = options.out.resolve()
    try:
        clear(out)
        studies = prepare(out / "studies")
        study = write_dicom(studies.torso, out / "dicom")
        server = Server(studies.folder, out, options.checkpoint)
        try:
            answers = interview(server, console)
        except ServerError:
            console.print(
                f"The server's last lines ({server.log}):", style="dim", markup=False, soft_wrap=True
            )
            console.print(server.tail(), style="dim", markup=False, highlight=False, soft_wrap=True)
            raise
        images = [read_image(studies.path(answer.question.image)) for answer in answers]
        notes = [note(answer, studies) for answer in answers]
        contact_sheet(answers, images, notes).save(out / "contact-sheet.png")
        report(console, answers, notes, studies)
    except (ServerError, MedSegRError) as error:
        Console(stderr=True).print(f"The demo failed: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    console.print(f"\nContact sheet: {out / 'contact-sheet.png'}", markup=False, soft_wrap=True)
    invite(console, out / "dicom", study)
    return 0


def clear(out: Path) -> None:
    """Remove what an earlier demo left in `out`; raises `MedSegRError` rather than remove somebody's own folder."""
    marker = out / ".medsegr-demo"
    left = [folder for folder in (out / "studies", out / "dicom", out / "state") if folder.exists()]
    if left and not marker.exists() and not (out / "server.log").exists():
        raise MedSegRError(f"{left[0]} was not made by a demo; name another folder with --out.")
    for folder in left:
        shutil.rmtree(folder)
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()


def interview(server: Server, console: Console) -> list[Answer]:
    """Start the server, ask the six questions, stop it."""
    answers: list[Answer] = []
    with console.status("Starting the MONAI Label server …") as status, server:
        console.print(f"MONAI Label serves {server.url}; six questions follow.", highlight=False)
        for question in QUESTIONS:
            status.update(f"Asking: {escape(question.text)}")
            earlier = answers[-1:] if question.follows else []
            history = [{"question": a.question.text, "answer": a.params["answer"]} for a in earlier]
            answers.append(ask(server.url, question, history))
            show(console, len(answers), answers[-1])
        status.update("Stopping the server …")
    return answers


def show(console: Console, number: int, answer: Answer) -> None:
    """One question and its reply."""
    question = answer.question
    console.print(
        f"\n{number}. {question.kind}, on {question.image}", style="dim", markup=False, highlight=False
    )
    console.print(f"Q  {question.text}", style="bold", markup=False, soft_wrap=True)
    console.print(f"A  {answer.params['answer']}", markup=False, soft_wrap=True)
    for found in answer.params["findings"]:
        words = f"   {found['label']}: confidence {found['confidence']:.0%}, {size_in_words(found)}"
        console.print(words, markup=False, highlight=False)
    console.print(f"   {answer.seconds:.2f} s", style="dim", highlight=False)


def measured(answer: Answer, studies: Studies) -> float | None:
    """Dice against the exact mask of the phantom; None where there is no exact mask."""
    if not answer.question.truth:
        return None
    truth = studies.truth(*answer.question.truth)
    outlined = answer.outlined()
    return 0.0 if outlined is None else dice(outlined, truth)


def note(answer: Answer, studies: Studies) -> str:
    """The line under a tile of the sheet: findings with confidence, time and, where it can be measured, Dice."""
    found = (
        ", ".join(f"{f['label']} {f['confidence']:.0%}" for f in answer.params["findings"])
        or "nothing outlined"
    )
    score = measured(answer, studies)
    against = "" if score is None else f"; Dice {score:.2f} against the exact mask"
    return f"{found}; {answer.seconds:.2f} s{against}"


def weakness(answer: Answer, studies: Studies) -> str | None:
    """What went wrong with an answer, judged by what the question expects and what can be measured; None if nothing."""
    score, expected = measured(answer, studies), answer.question.expects
    if not expected and answer.labels:
        return f"It outlined {', '.join(answer.labels)}, which the image does not show."
    if expected and answer.outlined() is None:
        return f"It did not outline the {expected[0]}."
    if score is not None and score < WEAK_DICE:
        return f"Dice {score:.2f} against the exact mask is low."
    extra = sorted(set(answer.labels) - set(expected))
    return f"It outlined {', '.join(extra)} as well." if extra and expected else None


def report(console: Console, answers: list[Answer], notes: list[str], studies: Studies) -> None:
    """All six at a glance, then where the model is weak."""
    table = Table("", "question", "outlined", title="Six questions, six answers")
    for n, (answer, line) in enumerate(zip(answers, notes, strict=True), start=1):
        table.add_row(str(n), escape(answer.question.text), escape(line))
    console.print()
    console.print(table)
    console.print("\nWhere to be careful", style="bold")
    for n, answer in enumerate(answers, start=1):
        words = [w for w in (weakness(answer, studies), answer.question.remark) if w]
        if words:
            console.print(f"{n}. {' '.join(words)}", markup=False, highlight=False, soft_wrap=True)
    last = answers[-1].params
    console.print(
        "A confidence estimates the chance of Dice 0.7 or more on images like the training images; on others it is a guess. "
        f"Research use only, not a medical device. Weights {last['model_version']}, {last['weights_licence']}.",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def invite(console: Console, folder: Path, study: str) -> None:
    """How to open the body of questions 4 and 5 in OHIF; `folder` holds it as a DICOM study of this UID."""
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    title = "\nTo see the body of questions 4 and 5 in OHIF and ask it there (no PACS is needed)"
    console.print(title, style="bold", soft_wrap=True)
    for line in (
        f"  make serve STUDIES={shlex.quote(str(shown))}",
        "then, with the panel of MedSeg-R, or in the mode that MONAI Label brings:",
        f"  {VIEWER}/medsegr?StudyInstanceUIDs={study}",
        f"  {VIEWER}/monai-label?StudyInstanceUIDs={study}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
