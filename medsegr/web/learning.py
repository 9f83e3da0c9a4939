"""What happens to a correction once it counts: its answer is scored, its patient gets a split, and the slices that rounds
train on are kept. The routes of corrections call it; nothing that fails here harms a correction, and what is missing can be
built later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from medsegr.imaging import Picture, Volume, read_image
from medsegr.imaging.dicom_headers import files_below, read_headers, text
from medsegr.imaging.reading import Format, sniff
from medsegr.rounds.audit import SERVER, append
from medsegr.rounds.capture import capture
from medsegr.rounds.cases import Case, CaseStore, TrainingSlices
from medsegr.rounds.corrections import Correction, CorrectionStore, Verdict, correction_of
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.kept_patients import first_patient, images_of, kept_apart
from medsegr.rounds.leftovers import finish_removals
from medsegr.rounds.mask_files import PackedMasks
from medsegr.rounds.patients import IMAGE, PATIENTS_CSV, PatientKeys, read_patients_csv
from medsegr.rounds.prequential import prequential
from medsegr.rounds.scores import Scores
from medsegr.rounds.store import Turn, TurnStore
from medsegr.rounds.tables import AuditRow, CaseRow, CorrectionRow, WithdrawalRow
from medsegr.rounds.withdrawals import is_removed, mark_withdrawn
from medsegr.web.asked_slices import asked_slices, keep_asked
from medsegr.web.image_files import ImageFile
from medsegr.web.masks import Geometry, unpack

logger = logging.getLogger(__name__)
PATIENTS_FILE = "patients.csv"
SLICES = 8
"""Slices of a volume that are kept for training."""
TAKEN, KEPT = "correction", "case"
"""What the audit calls a correction that came in, and a case that was made of one."""


class Learner:
    """Makes cases of corrections; thread-safe.

    `find` resolves an image id and raises `MedSegRError`; `studies` is the folder that may hold `patients.csv`, which is read
    anew for every correction.
    """

    def __init__(
        self,
        turns: TurnStore,
        find: Callable[[str], ImageFile],
        studies: Path | None = None,
        cases: CaseStore | None = None,
        limit: int = SLICES,
    ) -> None:
        self.turns, self.find, self.studies, self.limit = turns, find, studies, limit
        self.database = turns.database
        self.corrections = CorrectionStore(self.database)
        self.cases = cases or CaseStore(self.database)
        self.scores = Scores(self.database)
        self.keys = PatientKeys(self.database.folder)
        self._warned = False

    def learn(self, correction: Correction) -> Case | None:
        """Score the answer, then keep a case; None where nothing was or could be kept. Never raises: the correction counts
        whatever happens here.
        """
        self._tried(self._score, correction)
        case: Case | None = self._tried(self._keep, correction) if _teaches(correction) else None
        return case

    def build_missing(self) -> int:
        """Make up for what `learn` could not do, because an image was away or the server was stopped; returns how many
        cases were made. Corrections that were withdrawn stay out, and removals that were interrupted are finished first.
        """
        self._finish_removals()
        with self.database.session() as session:
            cases = select(CaseRow.correction_id)
            taken = select(AuditRow.subject).where(AuditRow.action == TAKEN)
            lacking = or_(CorrectionRow.id.not_in(cases), CorrectionRow.id.not_in(taken))
            rows = session.scalars(_not_withdrawn().where(lacking).order_by(CorrectionRow.created))
            missing = [correction_of(row) for row in rows]
            scored, kept = set(session.scalars(taken)), set(session.scalars(cases))
        made = 0
        for correction in missing:
            if correction.id not in scored:
                self._tried(self._score, correction)
            if correction.id in kept or not _teaches(correction):
                continue
            if self._tried(self._keep, correction) is not None:
                made += 1
        return made

    def _finish_removals(self) -> None:
        try:
            finish_removals(self.database)
        # Broad on purpose: nothing of it may keep corrections from counting. Its message may name an image.
        except Exception as error:  # noqa: BLE001
            logger.error(
                "What a removal of a patient left cannot be deleted yet (%s); the next start or removal tries again.",
                type(error).__name__,
            )

    def patient_of(self, image: ImageFile) -> tuple[str, str]:
        """(key, kind) of the patient whom a new image shows; see `PatientKeys.of`. Raises `StoreError` for a `patients.csv`
        that cannot be used.
        """
        mapping = self._mapping()
        key, kind = self.keys.of(_named(image, mapping), _dicom_patient_id(image), mapping)
        if kind == IMAGE and not self._warned:
            self._warned = True
            logger.warning(
                "No patient is known of an image, so it counts as a patient of its own; name the patients of the studies' "
                "images in `patients.csv` (columns image,patient), or pictures of one patient may be split."
            )
        return key, kind

    def _mapping(self) -> dict[str, str]:
        path = self.studies / PATIENTS_FILE if self.studies else None
        return read_patients_csv(path) if path and path.is_file() else {}

    def _tried(self, step: Callable[[Correction], Any], correction: Correction) -> Any:
        try:
            return step(correction)
        # Broad on purpose: readers of five formats, a full disk, a locked database; the correction counts already.
        except Exception as error:  # noqa: BLE001
            logger.warning(
                "A correction taught nothing yet; the next start tries again: %s", _loggable(error)
            )
            return None

    def _score(self, correction: Correction) -> None:
        """Store the prequential scores and the row of the audit, together."""
        turn = self._turn(correction)
        scores: dict[str, float] = {}
        if turn is not None and correction.findings:
            answered = Unpacked(self.turns.packed_masks(turn))
            scores = prequential(correction, turn.findings, answered, self._masks(correction))
        version = correction.model_version or (turn.model_version if turn else None) or "unknown"
        with self.database.writing() as session:
            for label, value in scores.items():
                self.scores.add(correction.id, label, value, version, session=session)
            detail = {
                "verdict": correction.verdict.value,
                "origin": correction.origin.value,
                "findings": len(correction.findings),
                "scores": len(scores),
                "model_version": version,
            }
            append(session, correction.editor, TAKEN, correction.id, detail)

    def _keep(self, correction: Correction) -> Case | None:
        """Store the case, the patient's split and the row of the audit, together."""
        turn = self._turn(correction)
        masks = self._masks(correction)
        with _held(self.find(correction.image_id)) as image:
            with self.database.session() as session:
                first = first_patient(session, correction.image_id)
            key, kind = first or self.patient_of(image)
            with self.database.writing() as session:
                if self._withdrawn(session, correction, key):
                    return None
            pictured, chosen = _read(image, turn, masks.packed)
            slices = self._slices(pictured, masks, turn, chosen)
        modality = pictured.modality[:16] if pictured.modality else None
        with self.database.writing() as session:
            key, kind = first_patient(session, correction.image_id) or (key, kind)  # now nobody else writes
            if self._withdrawn(session, correction, key):  # removed while the image was read
                return None
            stratum = modality or "unknown"
            case = self.cases.add(correction.id, key, kind, stratum, modality, slices, session=session)
            detail = {"split": case.split.value, "slices": case.slices, "sha256": case.sha256}
            append(session, correction.editor, KEPT, correction.id, detail)
        if first is None and kind == PATIENTS_CSV:
            self._warn_of_images_apart(image, case)
        return case

    def _withdrawn(self, session: Session, correction: Correction, key: str) -> bool:
        """Whether the patient was removed; the correction is withdrawn then. The image itself may have been removed, before
        anything was known of its patient."""
        removed = is_removed(session, key) or is_removed(session, self.keys.of(correction.image_id)[0])
        if removed:
            mark_withdrawn(session, correction.id, SERVER, "The patient was removed.")
        return removed

    def _warn_of_images_apart(self, image: ImageFile, case: Case) -> None:
        """Say so where `patients.csv` gives a new image to a patient whose other images were kept before it named them."""
        mapping = self._mapping()
        patient = mapping.get(_named(image, mapping))
        if patient is None:
            return
        with self.database.session() as session:
            apart = kept_apart(session, images_of(mapping, patient), case.split)
        if apart:
            logger.warning(
                "`patients.csv` names one patient for a new image and for images that were kept as patients of their own before, "
                "in another split; they stay there, so this patient is now in two splits."
            )

    def _slices(
        self, image: Picture | Volume, masks: Unpacked, turn: Turn | None, chosen: ImageFile
    ) -> TrainingSlices:
        asked = asked_slices(turn.options if turn else {}, chosen.stack, image)
        slices = capture(image, masks, self.limit)
        if asked is None or not isinstance(image, Volume):
            return slices
        return keep_asked(slices, image, masks, asked, self.limit)

    def _turn(self, correction: Correction) -> Turn | None:
        return self.turns.get(correction.turn_id) if correction.turn_id else None

    def _masks(self, correction: Correction) -> Unpacked:
        stored = self.database.correction_masks.read_packed(correction.id, len(correction.findings))
        return Unpacked(stored)


class Unpacked(Sequence[NDArray[np.bool_]]):
    """Packed masks as a sequence of bool arrays, each of them unpacked when it is asked for: the masks of a volume with many
    labels need gigabytes.
    """

    def __init__(self, packed: PackedMasks) -> None:
        self.packed = packed

    def __len__(self) -> int:
        return len(self.packed.packed)

    @overload
    def __getitem__(self, place: int) -> NDArray[np.bool_]: ...
    @overload
    def __getitem__(self, place: slice) -> list[NDArray[np.bool_]]: ...
    def __getitem__(self, place: int | slice) -> NDArray[np.bool_] | list[NDArray[np.bool_]]:
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        return unpack(self.packed.packed[place], self.packed.shape)


def without_case(database: Database) -> int:
    """How many corrections should be learnt from and cannot yet, since no case could be made of them."""
    with database.session() as session:
        cases = select(CaseRow.correction_id)
        rows = session.scalars(_not_withdrawn().where(CorrectionRow.id.not_in(cases)))
        return sum(_teaches(correction_of(row)) for row in rows)


def _not_withdrawn() -> Select[CorrectionRow]:
    return select(CorrectionRow).where(CorrectionRow.id.not_in(select(WithdrawalRow.correction_id)))


def _loggable(error: Exception) -> str:
    """What the log may say of it: sentences of the state folder and of `patients.csv` name files, lines, columns and sizes and
    quote nothing that these hold; others may name an image, and images may be named after patients."""
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, StoreError) else kind


def _teaches(correction: Correction) -> bool:
    """Whether anything is known of the image: of a rejection without masks there is nothing."""
    return bool(correction.findings) or correction.verdict is not Verdict.REJECTED


def _named(image: ImageFile, mapping: Mapping[str, str]) -> str:
    """What a `patients.csv` calls the image: its id, or the name of its file."""
    return next((name for name in (image.id, image.path.name) if name in mapping), image.id)


@contextmanager
def _held(image: ImageFile) -> Iterator[ImageFile]:
    """The image, whose files stay meanwhile."""
    release = image.hold() if image.hold else None
    try:
        yield image
    finally:
        if release:
            release()


def _read(image: ImageFile, turn: Turn | None, masks: PackedMasks) -> tuple[Picture | Volume, ImageFile]:
    """The image that the correction's masks lie on, and which one of a DICOM series' stacks it is: of those on whose grid they
    lie the one that was asked about, else the first. Raises `MedSegRError`.
    """
    if not image.stacks:
        return read_image(image.path), image
    asked = turn.options.get("stack") if turn else None
    grid = Geometry.from_json(masks.geometry)
    fitting = [n for n, stack in enumerate(image.stacks, start=1) if Geometry.of_stack(stack).fits(grid)]
    number = asked if asked in fitting else next(iter(fitting), None)
    if number is None:
        raise StoreError("No stack of the series has the grid of the correction's masks.")
    chosen = replace(image, n=number)
    stack = image.stacks[number - 1]
    path = image.path if stack.is_volume else stack.paths[0]
    return read_image(path, stack=chosen.reading if stack.is_volume else None), chosen


def _dicom_patient_id(image: ImageFile) -> str | None:
    """PatientID where the image is DICOM and has one."""
    if image.stacks:
        paths = [image.stacks[0].paths[0]]
    elif image.path.is_dir():
        paths = files_below(image.path)[:1]
    else:
        paths = [image.path] if sniff(image.path) is Format.DICOM else []
    return next((text(header, "PatientID") for _, header in read_headers(paths)), None)
