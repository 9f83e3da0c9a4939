"""The image series of an archive, asked for anew after a few seconds: /info asks on every request."""

from __future__ import annotations

import logging
import threading
import time

from medsegr.dicom.archive import Archive, ArchiveError, SeriesInfo
from medsegr.imaging.dicom_headers import NOT_IMAGES

logger = logging.getLogger(__name__)
KEPT_S = 3.0
AWAY_S = 10.0
"""For so long an archive that cannot be reached is not asked again."""


class Listing:
    """Never raises: while the archive cannot be reached, it is what it was last. One asks; the others do not wait."""

    def __init__(self, archive: Archive, kept_s: float = KEPT_S) -> None:
        self.archive, self.kept_s = archive, kept_s
        self._series: dict[str, SeriesInfo] | None = None
        self._due = 0.0
        self._asking = threading.Lock()

    def series(self) -> dict[str, SeriesInfo]:
        """UID -> series, those that hold no images left out."""
        if time.monotonic() >= self._due and self._asking.acquire(blocking=self._series is None):
            try:
                if time.monotonic() >= self._due:
                    self._ask()
            finally:
                self._asking.release()
        return self._series or {}

    def _ask(self) -> None:
        try:
            found = self.archive.series()
            self._series = {s.uid: s for s in found if (s.modality or "").upper() not in NOT_IMAGES}
            self._due = time.monotonic() + self.kept_s
        except ArchiveError as error:
            logger.warning("The series cannot be listed now: %s", error)
            self._series = self._series or {}
            self._due = time.monotonic() + AWAY_S

    def forget(self) -> None:
        """Ask anew next time."""
        self._due = 0.0
