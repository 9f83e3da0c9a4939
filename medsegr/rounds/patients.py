"""Which patient an image belongs to, as a keyed hash: the ledger can tell patients apart, and nobody who reads it learns
who they are. The key stays in the state folder; without it the hashes cannot be made again.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from medsegr.rounds.errors import StoreError

KEY_FILE = "patient.key"
KEY_BYTES = 32
DICOM, PATIENTS_CSV, IMAGE = "dicom", "patients.csv", "image"
"""What a patient's hash may be made of."""


class PatientKeys:
    """Makes the hashes with the key in `folder`, which is made when there is none. Raises `StoreError`."""

    def __init__(self, folder: Path) -> None:
        self._key = _read_or_make(folder / KEY_FILE)

    def of(
        self, image_id: str, dicom_patient_id: str | None = None, mapping: Mapping[str, str] | None = None
    ) -> tuple[str, str]:
        """(key, kind): 64 hexadecimal digits, and what they are made of. DICOM's PatientID goes before the `mapping`
        from image to patient (`read_patients_csv`); an image that neither knows is a patient of its own.
        """
        identifier = (dicom_patient_id or "").strip()
        if identifier:
            return self._hash(DICOM, identifier), DICOM
        named = (mapping or {}).get(image_id)
        if named:
            return self._hash(PATIENTS_CSV, named), PATIENTS_CSV
        return self._hash(IMAGE, image_id), IMAGE

    def _hash(self, kind: str, identifier: str) -> str:
        return hmac.new(self._key, f"{kind}:{identifier}".encode(), hashlib.sha256).hexdigest()


def read_patients_csv(path: Path) -> dict[str, str]:
    """Image -> patient from a CSV file with the columns `image` and `patient` (others are passed over), UTF-8.

    Raises `StoreError` where the file cannot be read, lacks a column or a value, or gives an image two patients.
    """
    expected = "expected are columns `image` and `patient`, one image a line"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"image", "patient"} <= set(reader.fieldnames or ()):
                raise StoreError(f"{path.name} has no column `image` or no column `patient`; {expected}.")
            found: dict[str, str] = {}
            for row in reader:
                image, patient = (row["image"] or "").strip(), (row["patient"] or "").strip()
                if not image or not patient:
                    raise StoreError(
                        f"{path.name} line {reader.line_num} lacks an image or a patient; {expected}."
                    )
                if found.setdefault(image, patient) != patient:
                    raise StoreError(
                        f"{path.name} line {reader.line_num} gives an image a second patient; {expected}."
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreError(f"{path.name} cannot be read ({type(error).__name__}); {expected}.") from error
    return found


def _read_or_make(path: Path) -> bytes:
    if not path.exists():
        _make(path)
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            key = stream.read(KEY_BYTES + 1)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error.strerror}); the key of the patients' hashes is expected."
        ) from error
    if os.name != "nt" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StoreError(f"{path} has mode {mode:04o}; expected 0600, so that others cannot read the key.")
    if len(key) != KEY_BYTES:
        raise StoreError(f"{path} is not the key of the patients' hashes; restore it from a backup.")
    return key


def _make(path: Path) -> None:
    """Write a key whole; where another process was quicker, its key stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}); name a writable folder.") from error
    finally:
        draft.unlink(missing_ok=True)
