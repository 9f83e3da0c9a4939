"""Which lines of the ledger a person means who asks that a patient be removed: by the name that DICOM, `patients.csv` or an image
gives the patient, or by one of the patient's images. The names are hashed and go no further.
"""

from __future__ import annotations

from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.kept_patients import first_patient
from medsegr.rounds.ledger import Ledger
from medsegr.rounds.patients import PatientKeys
from medsegr.rounds.withdrawals import REMOVED, Removal, remove_patients

UNKNOWN_PATIENT = (
    "The ledger knows no such patient; PatientID, a name of `patients.csv` or an image is expected."
)


def remove_named(database: Database, patient: str, by: str) -> Removal:
    """Delete what is kept of the patient whom DICOM, a `patients.csv` or an image that counts as a patient of its own calls
    `patient`; see `remove_patient`. All of those that the ledger knows go together."""
    keys = PatientKeys(database.folder)
    named = [
        keys.of("", patient)[0],
        keys.of("x", None, {"x": patient})[0],
        keys.of(patient)[0],
    ]
    ledger = Ledger(database)
    known = [key for key in dict.fromkeys(named) if ledger.split_of(key) is not None]
    if not known:
        raise StoreError(UNKNOWN_PATIENT)
    return remove_patients(database, known, by)


def remove_shown(database: Database, image: str, by: str) -> Removal:
    """Delete what is kept of the patient whom an image shows that was corrected, with its other images; see `remove_patient`."""
    with database.session() as session:
        found = first_patient(session, image) if image != REMOVED else None
    key = found[0] if found else PatientKeys(database.folder).of(image)[0]
    if Ledger(database).split_of(key) is None:
        raise StoreError(UNKNOWN_PATIENT)
    return remove_patients(database, [key], by, [image])
