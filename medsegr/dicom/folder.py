"""A folder of DICOM files in place of a PACS: looked at again every few seconds, never written to.

The index is our own, over pydicom headers, and lives in memory (a thousand files take about a second).
`dicomweb_client.DICOMfileClient` was tried: it keeps its database among the user's files, goes on listing files that are gone,
does not see that one has changed, cannot search by a range of dates or by ModalitiesInStudy, knows no descriptions, and lends
itself to one thread only. Uploaded instances go to a folder of the server's own and are listed with the others.
"""

from __future__ import annotations

import errno
import filecmp
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pydicom

from medsegr.dicom.headers import Header, read_header
from medsegr.dicom.scanning import Scanner
from medsegr.dicom.stow import Failure, Stored

RESCAN_S = 2.0
MAX_SHARE = 0.1
"""Of the time, how much may go into looking for changes: a slow network folder is looked at less often."""


@dataclass(frozen=True)
class Index:
    """What the folder held at one moment; an instance that lies there twice is listed once."""

    headers: tuple[Header, ...] = ()
    instances: Mapping[str, Header] = field(default_factory=dict)
    series: Mapping[str, tuple[Header, ...]] = field(default_factory=dict)
    studies: Mapping[str, tuple[Header, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, headers: Iterable[Header]) -> Index:
        """Group headers by their UIDs, in the order of instance numbers."""
        instances: dict[str, Header] = {}
        for header in headers:
            instances.setdefault(header.sop, header)
        ordered = sorted(instances.values(), key=lambda h: (h.study, h.series, h.number))
        series: dict[str, list[Header]] = {}
        studies: dict[str, list[Header]] = {}
        for header in ordered:
            series.setdefault(header.series, []).append(header)
            studies.setdefault(header.study, []).append(header)
        return cls(
            tuple(ordered),
            instances,
            {uid: tuple(members) for uid, members in series.items()},
            {uid: tuple(members) for uid, members in studies.items()},
        )

    def find(self, study: str, series: str = "", sop: str = "") -> tuple[Header, ...]:
        """The instances of a study, of one of its series, or the one of this SOP UID; empty if there is none."""
        if sop:
            header = self.instances.get(sop)
            return (header,) if header and (header.study, header.series) == (study, series) else ()
        if series:
            return tuple(header for header in self.series.get(series, ()) if header.study == study)
        return self.studies.get(study, ())


class DicomFolder:
    """The instances below `root`, whose files stay as they are, and those that were uploaded to `index_folder`/stored.

    Safe to use from any number of threads. Reading never waits for a scan, except for the first one.
    """

    def __init__(self, root: Path, index_folder: Path, *, rescan_s: float = RESCAN_S) -> None:
        self.root, self.stored = root, index_folder / "stored"
        self.incoming = index_folder / "incoming"
        self._rescan_s = rescan_s
        self._scanners = (Scanner(root, skip=index_folder), Scanner(self.stored))
        self._scanning, self._storing = threading.Lock(), threading.Lock()
        self._index: Index | None = None
        self._due = 0.0

    def index(self) -> Index:
        """What the folder holds, at most some seconds old."""
        if time.monotonic() >= self._due and self._scanning.acquire(blocking=self._index is None):
            try:
                if time.monotonic() >= self._due:
                    self._scan()
            finally:
                self._scanning.release()
        assert self._index is not None  # the first caller waited for the first scan
        return self._index

    def upload_folder(self) -> tempfile.TemporaryDirectory[str]:
        """A temporary folder for an upload that `store` will take files from."""
        self._make_private(self.incoming)
        return tempfile.TemporaryDirectory(dir=self.incoming, prefix="upload-")

    def store_files(self, paths: Iterable[Path], study: str = "") -> list[Stored]:
        """Take over uploaded files, of one study only if `study` is given. Each is stored whole or not at all."""
        with self._storing:
            index = self.index()
            outcomes = [self._store(path, study, index) for path in paths]
        with self._scanning:
            self._scan()
        return outcomes

    def _scan(self) -> None:
        began = time.monotonic()
        changed = [scanner.scan() for scanner in self._scanners]
        if self._index is None or any(changed):
            self._index = Index.of(chain.from_iterable(scanner.headers() for scanner in self._scanners))
        now = time.monotonic()
        self._due = now + max(self._rescan_s, (now - began) / MAX_SHARE)

    def _store(self, path: Path, study: str, index: Index) -> Stored:
        header = read_header(path)
        if header is None:
            return Stored("", "", "", "", Failure.NOT_UNDERSTOOD)
        uids = (header.study, header.series, header.sop, header["SOPClassUID"])
        if study and header.study != study:
            return Stored(*uids, Failure.MISMATCH)
        target = self.stored / header.series / f"{header.sop}.dcm"
        known = index.instances.get(header.sop)
        present = target if target.exists() else known.path if known else None
        if present is not None:
            return Stored(*uids, None if _same(path, present) else Failure.DUPLICATE)
        try:
            self._make_private(self.stored)
            target.parent.mkdir(exist_ok=True)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            path.replace(target)
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            return Stored(*uids, Failure.OUT_OF_RESOURCES if full else Failure.PROCESSING)
        return Stored(*uids)

    def _make_private(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold the same data set."""
    try:
        return filecmp.cmp(one, other, shallow=False) or pydicom.dcmread(one) == pydicom.dcmread(other)
    # Broad on purpose: files that cannot be compared are not known to be the same.
    except Exception:  # noqa: BLE001
        return False
