"""A `DicomFolder` as an `Archive`: its series are read where they lie, new instances go to the server's own folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from medsegr.dicom.archive import ArchiveError, SeriesInfo, UnknownSeries
from medsegr.dicom.folder import DicomFolder
from medsegr.dicom.headers import Header


class FolderArchive:
    """See `Archive`; what is listed is at most a few seconds old."""

    local = True

    def __init__(self, folder: DicomFolder) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.folder.root)

    def series(self) -> list[SeriesInfo]:
        """All series in the order of their UIDs."""
        found = []
        for uid, members in self.folder.index().series.items():
            modality, description, part, patient = (
                next((member[key] for member in members if member[key]), None)
                for key in ("Modality", "SeriesDescription", "BodyPartExamined", "PatientID")
            )
            found.append(
                SeriesInfo(uid, members[0].study, modality, description, part, len(members), patient)
            )
        return found

    def instances(self, series_uid: str) -> frozenset[str]:
        """SOPInstanceUIDs of a series; raises `UnknownSeries`."""
        return frozenset(header.sop for header in self._members(series_uid))

    def fetch(self, series_uid: str, into: Path) -> list[Path]:
        """The user's own files of a series, sorted by name; `into` stays empty. Raises `UnknownSeries`."""
        paths = [header.path for header in self._members(series_uid)]
        return sorted(paths, key=lambda path: (path.name, path))

    def store(self, datasets: Sequence[Dataset]) -> None:
        """Keep instances beside the index, never among the user's files; raises `ArchiveError`."""
        with self.folder.upload_folder() as name:
            paths = []
            for number, dataset in enumerate(datasets):
                paths.append(Path(name) / f"{number:05d}.dcm")
                dataset.save_as(paths[-1], write_like_original=False)
            failed = [outcome.failure for outcome in self.folder.store_files(paths) if outcome.failure]
        if failed:
            raise ArchiveError(
                f"The folder did not take {len(failed)} new instances ({failed[0].name.lower()})."
            )

    def _members(self, series_uid: str) -> tuple[Header, ...]:
        members = self.folder.index().series.get(series_uid)
        if not members:
            raise UnknownSeries("The folder has no series of this UID.")
        return members
