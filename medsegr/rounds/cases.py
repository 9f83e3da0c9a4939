"""Cases: corrections with the slices that rounds train and judge on. The slices are copies, so that a round needs neither
the archive nor the image; they are whole on the disk before their row speaks of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from medsegr.rounds.corrections import Correction, correction_of
from medsegr.rounds.database import Database
from medsegr.rounds.errors import DAMAGED, StoreError
from medsegr.rounds.ledger import Ledger
from medsegr.rounds.mask_files import write_arrays
from medsegr.rounds.tables import CaseRow, CorrectionRow, PatientRow, Split, TurnRow, WithdrawalRow


@dataclass(frozen=True, eq=False)
class TrainingSlices:
    """Slices of one image. `rgb` [n, H, W, 3] uint8, as displayed to the model, before resizing; `masks` [k, n, H, W] bool,
    one of each finding of the correction, in its order; `index` [n] int64, the slices' numbers (0 for a picture).
    """

    rgb: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    index: NDArray[np.int64]

    def __post_init__(self) -> None:
        n, *size = self.rgb.shape[:3]
        if self.rgb.ndim != 4 or self.rgb.shape[3] != 3 or self.rgb.dtype != np.uint8 or not n:
            raise StoreError(
                f"Slices have shape {self.rgb.shape}; [n, H, W, 3] uint8, at least one, is expected."
            )
        if self.masks.ndim != 4 or self.masks.shape[1:] != (n, *size) or self.masks.dtype != np.bool_:
            raise StoreError(
                f"Masks have shape {self.masks.shape}; bool [k, {n}, H, W] on the slices is expected."
            )
        if self.index.shape != (n,):
            raise StoreError(f"There are {n} slices, but slice numbers of shape {self.index.shape}.")

    def sha256(self) -> str:
        """A hash of what is in the arrays, in hexadecimal digits; how they are packed on the disk is no part of it."""
        digest = hashlib.sha256()
        for array in (self.rgb, self.masks, self.index.astype("<i8")):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Case:
    """A correction that a round can use, detached from the database. `question` and `answer` are the turn's ("" and None
    where no question was asked); `slices` counts what was kept; `sha256` is that of its `TrainingSlices`.
    """

    correction: Correction
    question: str
    answer: str | None
    patient_key: str
    split: Split
    modality: str | None
    slices: int
    sha256: str


class CaseStore:
    """Thread-safe access to the cases of a state folder. Raises `StoreError`."""

    def __init__(self, database: Database, ledger: Ledger | None = None) -> None:
        self.database = database
        self.ledger = ledger or Ledger(database)

    def path(self, correction_id: str) -> Path:
        """Where the slices are, or would be."""
        return self.database.paths.cases / correction_id[:2] / f"{correction_id}.npz"

    def add(
        self,
        correction_id: str,
        patient_key: str,
        kind: str,
        stratum: str,
        modality: str | None,
        slices: TrainingSlices,
        *,
        session: Session | None = None,
    ) -> Case:
        """Keep the slices of a correction, whose patient gets a split where it has none. A case that is there already
        stays as it is. Within `session` the case counts once its owner commits; slices without a row harm nothing, and are
        replaced when the case is made again.
        """
        with self.database.writing(session) as own:
            if own.get(CaseRow, correction_id) is None:
                self._store(own, correction_id, patient_key, kind, stratum, modality, slices)
            return _case(own.execute(_query().where(CaseRow.correction_id == correction_id)).one())

    def _store(
        self,
        session: Session,
        correction_id: str,
        patient_key: str,
        kind: str,
        stratum: str,
        modality: str | None,
        slices: TrainingSlices,
    ) -> None:
        count = len(_correction_row(session, correction_id).findings)
        if len(slices.masks) != count:
            raise StoreError(
                f"The correction has {count} findings, but masks of {len(slices.masks)} are to be kept."
            )
        self.ledger.assign(patient_key, kind, stratum, session=session)
        write_arrays(self.path(correction_id), _packed(slices))
        row = CaseRow(
            correction_id=correction_id,
            patient_key=patient_key,
            modality=modality,
            slices=len(slices.index),
            sha256=slices.sha256(),
        )
        try:
            session.add(row)
            session.flush()
        except BaseException:
            self.discard(correction_id)
            raise

    def cases(self, split: Split | None = None, include_withdrawn: bool = False) -> list[Case]:
        """Every case of a split (None: of all), oldest first; without those that were withdrawn unless asked for."""
        query = _query().order_by(CorrectionRow.created, CorrectionRow.id)
        if split is not None:
            query = query.where(PatientRow.split == split.value)
        if not include_withdrawn:
            query = query.where(CaseRow.correction_id.not_in(select(WithdrawalRow.correction_id)))
        with self.database.session() as session:
            return [_case(row) for row in session.execute(query)]

    def read(self, correction_id: str) -> TrainingSlices:
        """The slices of a case, as they were kept: a file that was changed is damaged. Raises `StoreError`."""
        with self.database.session() as session:
            row = session.get(CaseRow, correction_id)
            if row is None:
                raise StoreError("No case belongs to a correction of this id.")
            expected = row.sha256
        try:
            with np.load(self.path(correction_id), allow_pickle=False) as stored:
                slices = _unpacked(stored)
        except DAMAGED as error:
            raise StoreError(
                "The slices of this case are lost or damaged; restore the state folder."
            ) from error
        if slices.sha256() != expected:
            raise StoreError(
                "The slices of this case are not those that were kept; restore the state folder."
            )
        return slices

    def discard(self, correction_id: str) -> None:
        """Delete the slices of a case, if there are any; its row stays, to say what was trained on."""
        self.path(correction_id).unlink(missing_ok=True)


def _packed(slices: TrainingSlices) -> dict[str, NDArray[Any]]:
    return {
        "rgb": slices.rgb,
        "packed": np.packbits(slices.masks),
        "findings": np.asarray(len(slices.masks), np.int64),
        "index": slices.index.astype(np.int64),
    }


def _unpacked(stored: Any) -> TrainingSlices:
    rgb = stored["rgb"]
    shape = (int(stored["findings"]), *rgb.shape[:3])
    flat = np.unpackbits(stored["packed"], count=int(np.prod(shape)))
    return TrainingSlices(rgb, flat.view(np.bool_).reshape(shape), stored["index"])


def _correction_row(session: Session, correction_id: str) -> CorrectionRow:
    row = session.get(CorrectionRow, correction_id)
    if row is None:
        raise StoreError("No correction has this id, so there is nothing to make a case of.")
    return row


def _query() -> Any:
    return (
        select(CaseRow, CorrectionRow, PatientRow.split, TurnRow.question, TurnRow.answer)
        .join(CorrectionRow, CorrectionRow.id == CaseRow.correction_id)
        .join(PatientRow, PatientRow.key == CaseRow.patient_key)
        .outerjoin(TurnRow, TurnRow.id == CorrectionRow.turn_id)
    )


def _case(row: Any) -> Case:
    case, correction, split, question, answer = row
    return Case(
        correction=correction_of(correction),
        question=question or "",
        answer=answer,
        patient_key=case.patient_key,
        split=Split(split),
        modality=case.modality,
        slices=case.slices,
        sha256=case.sha256,
    )
