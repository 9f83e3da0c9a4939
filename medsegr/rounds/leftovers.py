"""What lies of a removed patient outside the database: masks, slices, pages of rounds, labels of stock clients, skips, looks.
It is written down before the rows are emptied and worked off afterwards, so that a removal that was interrupted can be
finished. A running server holds the ids of skipped and looked-at images in memory until it is started again.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from medsegr.files import sync, write_whole
from medsegr.rounds.cases import CaseStore
from medsegr.rounds.database import Database
from medsegr.rounds.tables import AuditRow, RoundRow, RoundStatus
from medsegr.rounds.version_files import remove

logger = logging.getLogger(__name__)
PENDING = "removals"
"""Below the state folder: a private file of each removal that is not finished, named by its row of the audit."""
LOCK = ".removing.lock"
LABELS = ("labels/labels", "labels/images")
"""Below the state folder: label maps and notes of an archive's images, each file named by its image and a dot."""
LINES = ("skipped.jsonl", "looks/*.jsonl")
"""JSON lines, each with its `image`."""


@dataclass(frozen=True)
class Leftovers:
    """What is to go: ids of turns and corrections, numbers of rounds, names of images."""

    turns: tuple[str, ...]
    corrections: tuple[str, ...]
    rounds: tuple[int, ...]
    images: tuple[str, ...]


def removing(database: Database) -> FileLock:
    """Lets one removal at a time write down and delete what is to go; use it in a `with`."""
    return FileLock(database.folder / LOCK)


def write_down(database: Database, row: AuditRow, leftovers: Leftovers) -> None:
    """Keep what is to go once the transaction of `row` counts: a file with mode 0600 that is whole and on the disk."""
    folder = database.folder / PENDING
    folder.mkdir(mode=0o700, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump({"row": row.id, "hash": row.hash, **asdict(leftovers)}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        Path(draft).replace(folder / f"{row.id}.json")
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    for changed in (folder, database.folder):  # the name must outlive a power cut as well
        sync(changed)


def finish_removals(database: Database, own: int | None = None) -> None:
    """Delete what removals left. One that cannot be finished keeps its list and harms no other. Raised is the error of the
    removal whose row of the audit is `own`, or the first of all (None); others are logged, without their text, which may name an
    image."""
    folder = database.folder / PENDING
    if not folder.is_dir():
        return
    failed: dict[int, Exception] = {}
    with removing(database):
        for draft in folder.glob(".*.part"):  # of a process that was killed: nobody else writes here now
            draft.unlink(missing_ok=True)
        for path in sorted(folder.glob("*.json")):
            try:
                _finish(database, path)
            except Exception as error:  # noqa: BLE001  # whatever it is: the others go first
                failed[int(path.stem)] = error
    raised = next(iter(failed.values()), None) if own is None else failed.get(own)
    for number, why in failed.items():
        if why is not raised:
            logger.error("What removal %d left cannot be deleted yet (%s).", number, type(why).__name__)
    if raised:
        raise raised


def _finish(database: Database, path: Path) -> None:
    """Work one list off; that of a transaction that never counted is dropped."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    with database.session() as session:
        row = session.get(AuditRow, kept["row"])
        counts = row is not None and row.hash == kept["hash"]
    if counts:
        delete(database, Leftovers(*(tuple(kept[name]) for name in Leftovers.__dataclass_fields__)))
    path.unlink()


def delete(database: Database, leftovers: Leftovers) -> None:
    """Delete all of it; what is gone already is fine."""
    cases = CaseStore(database)
    for id_ in leftovers.corrections:
        cases.discard(id_)
        database.correction_masks.remove(id_)
    for id_ in leftovers.turns:
        database.turn_masks.remove(id_)
    for number in leftovers.rounds:
        folder = database.paths.rounds / str(number)
        if folder.exists() and not _open(database, number):  # it goes on without the patient
            remove(folder)
    forget_images(database.folder, leftovers.images)


def _open(database: Database, number: int) -> bool:
    with database.session() as session:
        row = session.get(RoundRow, number)
        return row is not None and row.status in (RoundStatus.QUEUED, RoundStatus.RUNNING)


def forget_images(state: Path, images: Collection[str]) -> None:
    """Delete label files and lines about these images; what is not there is fine."""
    for folder in LABELS:
        for path in (state / folder).rglob("*"):
            if path.is_file() and any(path.name.startswith(f"{image}.") for image in images):
                path.unlink(missing_ok=True)
    for pattern in LINES:
        for path in state.glob(pattern):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            kept = [line for line in lines if _image(line) not in images]
            if len(kept) < len(lines):
                write_whole(path, "\n".join(kept).encode())


def _image(line: str) -> str | None:
    """The image that a line is about; None where a crash cut the line off."""
    try:
        return str(json.loads(line)["image"])
    except (ValueError, KeyError, TypeError):
        return None
