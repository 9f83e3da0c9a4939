"""What a folder's index remembers of one DICOM file: the attributes that people search by, as plain strings.

Nothing but the header is read, and the file is never written to.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

from medsegr.imaging.dicom_headers import looks_like_dicom

STUDY_KEYS = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "TimezoneOffsetFromUTC",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
)
SERIES_KEYS = (
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "SeriesDate",
    "SeriesTime",
    "Modality",
    "BodyPartExamined",
    "ProtocolName",
    "Manufacturer",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
)
INSTANCE_KEYS = (
    "SOPInstanceUID",
    "SOPClassUID",
    "InstanceNumber",
    "Rows",
    "Columns",
    "BitsAllocated",
    "NumberOfFrames",
)
KEYS = (*STUDY_KEYS, *SERIES_KEYS, *INSTANCE_KEYS)
PLACE = {key: n for n, key in enumerate(KEYS)}
VRS = {key: dictionary_VR(key) for key in KEYS}
READ = ["SpecificCharacterSet", *KEYS]
HEADERLESS_ENDINGS = frozenset({"", ".dcm", ".ima"})


@dataclass(frozen=True)
class Header:
    """One indexed file. `values` are the attributes of `KEYS` in that order, several values joined by a backslash."""

    path: Path
    values: tuple[str, ...]

    def __getitem__(self, key: str) -> str:
        """An attribute of `KEYS`, "" where it is missing or empty."""
        return self.values[PLACE[key]]

    @property
    def study(self) -> str:
        """StudyInstanceUID."""
        return self["StudyInstanceUID"]

    @property
    def series(self) -> str:
        """SeriesInstanceUID."""
        return self["SeriesInstanceUID"]

    @property
    def sop(self) -> str:
        """SOPInstanceUID."""
        return self["SOPInstanceUID"]

    @property
    def number(self) -> tuple[int, str]:
        """By what instances are sorted within a series."""
        return whole_number(self["InstanceNumber"]), self.sop

    @property
    def frames(self) -> int:
        """How many frames the instance has; 0 for one that is not an image."""
        if not (whole_number(self["Rows"]) and whole_number(self["Columns"])):
            return 0
        return max(whole_number(self["NumberOfFrames"]), 1)


def read_header(path: Path) -> Header | None:
    """The index entry of a file, or None for one that is no DICOM instance with study, series and SOP UID."""
    try:
        with path.open("rb") as stream:
            marked = stream.read(132)[128:] == b"DICM"
        if not marked and (path.suffix.lower() not in HEADERLESS_ENDINGS or not looks_like_dicom(path)):
            return None
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=READ, force=not marked)
        values = tuple(sys.intern(_text(dataset, key)) for key in KEYS)
    # Broad on purpose: a damaged file makes the parser raise almost anything, and must not cost the user the others.
    except Exception:  # noqa: BLE001
        return None
    header = Header(path, values)
    return header if all(valid_uid(uid) for uid in (header.study, header.series, header.sop)) else None


def valid_uid(uid: str) -> bool:
    """Whether this can be a UID (PS3.5 section 9.1, leading zeros forgiven); such a string is a safe file name."""
    return len(uid) <= 64 and all(part.isascii() and part.isdigit() for part in uid.split("."))


def whole_number(text: str) -> int:
    """The number, 0 where there is none."""
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return 0


def _text(dataset: Dataset, key: str) -> str:
    try:
        value = dataset.get(key)
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError):
        return ""  # a value that breaks its VR; the rest of the header is good
    if value is None:
        return ""
    if isinstance(value, (str, PersonName)) or not hasattr(value, "__iter__"):
        return str(value).strip(" \0")
    return "\\".join(str(part).strip(" \0") for part in value)
