"""`medsegr qa import` and `medsegr qa export`: MedSeg-QA from and to the formats of other projects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

FORMAT_HELP = "reasonseg, medisee, med-reasonseg, biomedparse, coco, nifti or dicom-seg."


def import_(
    format_: Annotated[str, typer.Argument(metavar="FORMAT", help=FORMAT_HELP)],
    source: Annotated[Path, typer.Argument(help="File or folder in that format.")],
    out: Annotated[
        Path, typer.Argument(help="MedSeg-QA file to write; images and masks go into STEM_files beside it.")
    ],
    modality: Annotated[
        str | None,
        typer.Option(help="CT, MR, XR, US, FUNDUS, DERM, PHOTO or MICRO, where the format does not say."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Name of the set.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; else as files and folders are called, else train.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the images.")] = "",
    licence_class: Annotated[str, typer.Option(help="permissive, noncommercial or research.")] = "research",
    label: Annotated[str, typer.Option(help="The target's name, where the format gives none.")] = "target",
    patient_pattern: Annotated[
        str | None,
        typer.Option(
            help=r"Regular expression that finds the patient in an image's name, such as 'patient\d+'."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that file names refer to, if it is not the source's own.")
    ] = None,
) -> None:
    """Read SOURCE in FORMAT and write the MedSeg-QA file OUT; what is wrong is named with file and line."""
    from medsegr.qa.formats import import_file
    from medsegr.qa.formats.records import ReadOptions

    console = Console()
    options = ReadOptions(modality, dataset, split, licence, licence_class, label, patient_pattern, images)
    with console.status("Reading …"):
        report = import_file(format_, source, out, options)
    console.print(f"{report.count} conversations in {out}", markup=False, soft_wrap=True)
    if report.dropped:
        console.print(f"Passed over: {report.sentence()}.", markup=False, soft_wrap=True)


def export(
    format_: Annotated[str, typer.Argument(metavar="FORMAT", help=FORMAT_HELP)],
    file: Annotated[Path, typer.Argument(help="MedSeg-QA file (JSON Lines).")],
    out_dir: Annotated[Path, typer.Argument(help="New folder to write.")],
    rle: Annotated[str, typer.Option(help="coco: compressed or uncompressed run lengths.")] = "compressed",
    table: Annotated[str, typer.Option(help="med-reasonseg: jsonl or csv.")] = "jsonl",
) -> None:
    """Write FILE in FORMAT into OUT_DIR; one line says what the format could not carry."""
    from medsegr.qa.formats import export_file
    from medsegr.qa.formats.records import WriteOptions

    console = Console()
    with console.status("Writing …"):
        report = export_file(format_, file, out_dir, WriteOptions(rle, table))
    console.print(f"{report.count} records in {out_dir}", markup=False, soft_wrap=True)
    if report.dropped:
        console.print(f"Not carried by {format_}: {report.sentence()}.", markup=False, soft_wrap=True)
