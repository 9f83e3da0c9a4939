"""What the rest of the program asks of a place that keeps DICOM: a PACS (`Pacs`) or a folder of files (`FolderArchive`).

An archive lists series, hands out the files of one, and takes new instances. It caches nothing: see `cache.SeriesCache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom.dataset import Dataset

from medsegr.errors import MedSegRError


class ArchiveError(MedSegRError):
    """An archive cannot be reached, refuses this server, or answers with what is no DICOMweb."""


class UnknownSeries(ArchiveError):
    """The archive has no series of this UID."""


@dataclass(frozen=True)
class SeriesInfo:
    """A series as the archive lists it; None for what it does not say."""

    uid: str
    study_uid: str
    modality: str | None = None
    description: str | None = None
    body_part: str | None = None
    n_instances: int | None = None
    patient_id: str | None = None


class Archive(Protocol):
    """A place that keeps DICOM. Every method may be called from any thread, and raises `ArchiveError`."""

    @property
    def name(self) -> str:
        """What people call it: a URL without a password, or a folder."""

    @property
    def local(self) -> bool:
        """Whether `fetch` gives the archive's own files, of which no copies need to be kept."""

    def series(self) -> list[SeriesInfo]:
        """All series as they are now, those that hold no images (SEG, SR...) included."""

    def instances(self, series_uid: str) -> frozenset[str]:
        """SOPInstanceUIDs of a series as it is now; raises `UnknownSeries`."""

    def fetch(self, series_uid: str, into: Path) -> list[Path]:
        """The files of a series: downloaded into the folder `into`, or where they lie; raises `UnknownSeries`."""

    def store(self, datasets: Sequence[Dataset]) -> None:
        """Keep new instances, all of them or raise."""
