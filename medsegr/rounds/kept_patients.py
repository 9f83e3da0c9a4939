"""What the cases that are kept say of an image's patient: an image never changes its patient, so that it is never in two splits,
whatever a `patients.csv` says later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from medsegr.rounds.patients import IMAGE
from medsegr.rounds.tables import CaseRow, CorrectionRow, PatientRow, Split


def first_patient(session: Session, image_id: str) -> tuple[str, str] | None:
    """(key, kind) of the patient whom the first correction of this image was kept under; None for a new image."""
    query = (
        select(PatientRow.key, PatientRow.kind)
        .join(CaseRow, CaseRow.patient_key == PatientRow.key)
        .join(CorrectionRow, CorrectionRow.id == CaseRow.correction_id)
        .where(CorrectionRow.image_id == image_id)
        .order_by(CorrectionRow.created, CorrectionRow.id)
    )
    row = session.execute(query.limit(1)).first()
    return (row.key, row.kind) if row else None


def kept_apart(session: Session, names: Iterable[str], split: Split) -> bool:
    """Whether one of these images (ids or file names) counts as a patient of its own, in another split than `split`."""
    ids = {id_ for name in names for id_ in _ids(name)}
    query = (
        select(CorrectionRow.image_id)
        .join(CaseRow, CaseRow.correction_id == CorrectionRow.id)
        .join(PatientRow, PatientRow.key == CaseRow.patient_key)
        .where(PatientRow.kind == IMAGE, PatientRow.split != split.value)
        .distinct()
    )
    return any(image_id in ids for image_id in session.scalars(query))


def images_of(mapping: Mapping[str, str], patient: str) -> list[str]:
    """The images that a `patients.csv` gives to this patient, as it names them."""
    return [image for image, named in mapping.items() if named == patient]


def _ids(name: str) -> set[str]:
    """What the id of a file of this name may be: the name, or what is before one of its dots."""
    parts = name.split(".")
    return {".".join(parts[:n]) for n in range(1, len(parts) + 1)} - {""}
