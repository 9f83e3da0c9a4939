"""Headers of DICOM files: which files are images, and what they say about themselves. Pixels are left alone.

Any attribute may be missing or damaged; what is asked for is then None, 0 or 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from medsegr.imaging.dicom_geometry import numbers

CROSS_SECTIONAL = frozenset({"CT", "MR", "PT", "NM"})
NOT_IMAGES = frozenset({"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTDOSE", "RTPLAN", "REG", "DOC", "FID"})
ENDINGS = frozenset({"", ".dcm", ".ima"})
"""Of files that may be DICOM without the `DICM` mark."""

Member = tuple[Path, Dataset]
"""A file and its header."""


def looks_like_dicom(path: Path) -> bool:
    """Whether a file without the `DICM` mark still parses as a DICOM data set that names its class or its
    rows.
    """
    try:
        dataset = pydicom.dcmread(
            path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID", "Rows"]
        )
        return "SOPClassUID" in dataset or "Rows" in dataset
    # Broad on purpose: forced on arbitrary bytes, the parser raises almost anything, and each time the answer
    # is no.
    except Exception:  # noqa: BLE001
        return False


def files_below(folder: Path) -> list[Path]:
    """Files under `folder` by name, without hidden ones and DICOMDIR."""
    found = (p for p in folder.rglob("*") if not p.name.startswith(".") and p.name != "DICOMDIR")
    return sorted(p for p in found if p.is_file())


def read_headers(paths: Iterable[Path]) -> list[Member]:
    """The DICOM images among files; others (reports, segmentations, notes) are passed over."""
    found: list[Member] = []
    for path in paths:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError):
            if not _may_be_bare(path):
                continue
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if "Rows" in header and "Columns" in header and modality_code(header) not in NOT_IMAGES:
            found.append((path, header))
    return found


def _may_be_bare(path: Path) -> bool:
    try:
        return bool(path.stat().st_size) and path.suffix.lower() in ENDINGS and looks_like_dicom(path)
    except OSError:
        return False


def sop_uid(header: Dataset) -> str:
    """SOPInstanceUID, from the meta header where the data set has none, else ""."""
    uid = text(header, "SOPInstanceUID")
    meta = getattr(header, "file_meta", None)
    return uid or (meta is not None and text(meta, "MediaStorageSOPInstanceUID")) or ""


def modality_code(header: Dataset) -> str:
    """DICOM's own code in upper case, "" where it is missing."""
    return (text(header, "Modality") or "").upper()


def frame_count(header: Dataset) -> int:
    """NumberOfFrames, 1 where it is missing."""
    found = numbers([header.get("NumberOfFrames")], 1)
    return max(int(found[0]), 1) if found else 1


def instance_number(header: Dataset) -> int:
    """InstanceNumber, 0 where it is missing."""
    found = numbers([header.get("InstanceNumber")], 1)
    return int(found[0]) if found else 0


def samples(header: Dataset) -> int:
    """SamplesPerPixel, 1 where it is missing."""
    found = numbers([header.get("SamplesPerPixel")], 1)
    return int(found[0]) if found else 1


def text(dataset: Dataset, key: str) -> str | None:
    """An attribute as stripped text, None where it is missing or empty."""
    return str(dataset.get(key, "") or "").strip() or None


def body_part(header: Dataset) -> str | None:
    """BodyPartExamined in upper case."""
    part = text(header, "BodyPartExamined")
    return part.upper() if part else None


def series_name(members: Sequence[Member]) -> str:
    """A series as people know it: modality, description and number of images."""
    header = members[0][1]
    name = str(header.get("SeriesDescription", "") or f"series {header.get('SeriesNumber', '?')}").strip()
    return f"{header.get('Modality', 'image')} '{name}' of {len(members)} images"


def frame_groups(dataset: Dataset, frames: int) -> list[Dataset]:
    """Per frame, the attributes of its plane out of the shared and per-frame functional groups, flattened."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    groups = []
    for index in range(frames):
        flat = Dataset()
        for source in (shared, per_frame[index] if index < len(per_frame) else None):
            for key in ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence"):
                for item in (source.get(key) or [])[:1] if source is not None else []:
                    flat.update(item)
        groups.append(flat)
    return groups
