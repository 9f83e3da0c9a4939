"""Documented formats in and out: each becomes a MedSeg-QA file (JSON Lines with images and masks beside it), and back.

`import_file` and `export_file` are the whole interface; a format is a module with `read` and `write`. Everything is made in a
hidden folder and renamed at the end, so nothing half-written is left; what is wrong is named with file and line.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from medsegr.errors import MedSegRError, QAFileError
from medsegr.qa.formats.drafts import Shelf, drafted, hidden
from medsegr.qa.formats.records import Item, ReadOptions, Report, WriteOptions, read_items
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import LICENCE_CLASSES, MODALITIES, SPLITS, Conversation

FORMATS = {
    "reasonseg": ("reasonseg", "reasonseg"),
    "medisee": ("medisee", "medisee"),
    "med-reasonseg": ("med_reasonseg", "med_reasonseg"),
    "biomedparse": ("biomedparse", "biomedparse"),
    "coco": ("coco", "coco"),
    "nifti": ("nifti", "nifti"),
    "dicom-seg": ("dicom_seg", "dicom_seg_writing"),
}
"""Each format's module that reads and that writes; imported when used, since some need large libraries."""

Reader = Callable[[Path, Shelf, ReadOptions], Iterator[Conversation]]
Writer = Callable[[Sequence[Item], Path, WriteOptions], Report]


def import_file(name: str, source: Path, out: Path, options: ReadOptions | None = None) -> Report:
    """Read `source` in the format `name` and write the MedSeg-QA file `out`, with images and masks in `STEM_files` beside it.

    Returns the number of conversations and what was passed over. Raises `MedSegRError` for an unknown format, an option out of
    range or an `out` that exists, `QAFileError` with file and line for whatever is wrong in `source`.
    """
    options = options or ReadOptions()
    _check(options)
    read: Reader = import_module(f"{__name__}.{_modules(name)[0]}").read
    if not source.exists():
        raise QAFileError(f"{source} does not exist; a {name} file or folder is expected.")
    files = out.with_name(f"{out.stem}_files")
    for path in (out, files):
        if path.exists():
            raise MedSegRError(f"{path} exists already; a new name is expected.")
    draft = hidden(out)
    try:
        shelf = Shelf(draft, files.name)
        count = write_qa(draft / out.name, read(source, shelf, options))
        if not count:
            raise QAFileError(
                f"{source} holds nothing to ask about in the format {name}; at least one target is expected."
            )
        (draft / files.name).rename(files)
        (draft / out.name).rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Report(count, shelf.notes)


def export_file(name: str, file: Path, out: Path, options: WriteOptions | None = None) -> Report:
    """Write the MedSeg-QA file `file` in the format `name` into the new folder `out`; says what the format could not carry.

    Raises `MedSegRError` for an unknown format or an `out` that exists, `QAFileError` with file and line for a broken
    conversation, image or mask, and where nothing at all could be written.
    """
    write: Writer = import_module(f"{__name__}.{_modules(name)[1]}").write
    items = list(read_items(file))
    with drafted(out) as draft:
        report = write(items, draft, options or WriteOptions())
        if not report.count:
            lost = f" ({report.sentence()})" if report.dropped else ""
            raise QAFileError(f"{file} holds nothing that the format {name} can carry{lost}.")
    return report


def _modules(name: str) -> tuple[str, str]:
    if name not in FORMATS:
        raise MedSegRError(f"Unknown format '{name}': expected one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _check(options: ReadOptions) -> None:
    for what, value, allowed in (
        ("modality", options.modality, MODALITIES),
        ("split", options.split, SPLITS),
        ("licence class", options.licence_class, LICENCE_CLASSES),
    ):
        if value is not None and value not in allowed:
            raise MedSegRError(f"Unknown {what} '{value}': expected one of {', '.join(allowed)}.")
