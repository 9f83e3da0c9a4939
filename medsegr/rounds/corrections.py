"""Corrections on disk: what clinicians made of answers, with every mask they vouch for.

Masks are complete before the row says so, and a row is on the disk before `add` returns: a crash loses nothing
that was acknowledged and leaves nothing half. A correction never changes; a later one about the same turn
stands beside it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.mask_files import StoredMask
from medsegr.rounds.tables import CorrectionRow, Origin, Verdict

__all__ = ["Correction", "CorrectionStore", "NewCorrection", "NewFinding", "Origin", "Verdict"]


@dataclass(frozen=True, eq=False)
class NewFinding:
    """One structure as the clinician sees it. `n` is the finding of the turn that it replaces, None if it is new.

    `packed` is `numpy.packbits` of its whole mask; `voxels` counts what is inside: 0 says "not present".
    """

    n: int | None
    label: str
    packed: bytes
    voxels: int


@dataclass(frozen=True, eq=False)
class NewCorrection:
    """A checked correction, ready to be stored. `answer` is None where the text was left as it was; masks are
    arrays of `shape` on the grid that `geometry` (plain JSON) describes.
    """

    image_id: str
    editor: str
    verdict: Verdict
    origin: Origin
    findings: tuple[NewFinding, ...]
    shape: tuple[int, ...]
    geometry: dict[str, Any]
    turn_id: str | None = None
    client_id: str | None = None
    reason: str | None = None
    answer: str | None = None
    model_version: str | None = None


@dataclass(frozen=True)
class Correction:
    """One stored correction, detached from the database. `findings`: [{n, label, present, voxels}], mask k (from 1)
    belonging to the k-th of them.
    """

    id: str
    turn_id: str | None
    image_id: str
    editor: str
    client_id: str | None
    created: str
    verdict: Verdict
    reason: str | None
    answer: str | None
    findings: list[dict[str, Any]]
    origin: Origin
    model_version: str | None


class CorrectionStore:
    """Thread-safe access to the corrections of a state folder. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, new: NewCorrection) -> Correction:
        """Store a correction; it is on the disk when this returns."""
        with self.prepared(new) as commit:
            return commit()

    @contextmanager
    def prepared(self, new: NewCorrection) -> Iterator[Callable[[], Correction]]:
        """Write the masks, which is what may fail, and give the call that makes the correction count.

        Whoever stores something elsewhere as well does so in between: if that fails, nothing of the correction stays.
        """
        id_ = uuid.uuid4().hex
        masks = self.database.correction_masks
        committed = False

        def commit() -> Correction:
            nonlocal committed
            row = _row(id_, new)
            with self.database.session() as session, session.begin():
                session.add(row)
                session.flush()
                stored = correction_of(row)
            committed = True
            return stored

        masks.write(id_, [finding.packed for finding in new.findings], new.shape, new.geometry)
        try:
            yield commit
        finally:
            if not committed:
                masks.remove(id_)

    def get(self, correction_id: str) -> Correction:
        """The correction of this id; raises `StoreError`."""
        with self.database.session() as session:
            row = session.get(CorrectionRow, correction_id)
            if row is None:
                raise StoreError(
                    "No correction has this id; `GET /medsegr/corrections` lists those that exist."
                )
            return correction_of(row)

    def corrections(
        self,
        image_id: str | None = None,
        turn_id: str | None = None,
        editor: str | None = None,
        limit: int = 200,
    ) -> list[Correction]:
        """The newest corrections, of one image, turn or editor if named, oldest first."""
        query = select(CorrectionRow).order_by(CorrectionRow.created.desc(), CorrectionRow.id).limit(limit)
        for column, wanted in (
            (CorrectionRow.image_id, image_id),
            (CorrectionRow.turn_id, turn_id),
            (CorrectionRow.editor, editor),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        with self.database.session() as session:
            return [correction_of(row) for row in reversed(session.scalars(query).all())]

    def mask(self, correction_id: str, k: int) -> StoredMask:
        """Mask `k` (from 1, in the order of the findings); raises `StoreError`."""
        count = len(self.get(correction_id).findings)
        if not 1 <= k <= count:
            raise StoreError(f"This correction has {count} masks, numbered from 1; there is no mask {k}.")
        return self.database.correction_masks.read(correction_id, k)


def _row(id_: str, new: NewCorrection) -> CorrectionRow:
    return CorrectionRow(
        id=id_,
        turn_id=new.turn_id,
        image_id=new.image_id,
        editor=new.editor,
        client_id=new.client_id,
        created=now(),
        verdict=new.verdict.value,
        reason=new.reason,
        answer=new.answer,
        findings=[
            {"n": f.n, "label": f.label, "present": f.voxels > 0, "voxels": f.voxels} for f in new.findings
        ],
        origin=new.origin.value,
        model_version=new.model_version,
    )


def correction_of(row: CorrectionRow) -> Correction:
    """The row, detached from the database."""
    return Correction(
        id=row.id,
        turn_id=row.turn_id,
        image_id=row.image_id,
        editor=row.editor,
        client_id=row.client_id,
        created=row.created,
        verdict=Verdict(row.verdict),
        reason=row.reason,
        answer=row.answer,
        findings=row.findings,
        origin=Origin(row.origin),
        model_version=row.model_version,
    )
