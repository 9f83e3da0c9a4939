"""Which file stands behind an image id. Ids come from clients: only the datastore and sessions are believed,
never a path.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from pathlib import Path

from monailabel.interfaces.datastore import Datastore
from monailabel.utils.sessions import Sessions

from lib.datastore.dicom import DicomDatastore
from medsegr.dicom.archive import ArchiveError, UnknownSeries
from medsegr.dicom.cache import CachedSeries, SeriesCache
from medsegr.imaging.dicom_series import Stack, stacks
from medsegr.web.errors import Refusal
from medsegr.web.image_files import ImageFile

MAX_SERIES = 64
"""Series whose headers are remembered."""
SESSION_ID = re.compile(r"[0-9A-Fa-f-]{36}")
UNKNOWN = (
    "There is no image of this id among the studies; `GET /datastore/?output=all` lists those that exist."
)


class Images:
    """Finds images in a datastore or among uploaded sessions."""

    def __init__(self, datastore: Datastore, sessions: Sessions | None) -> None:
        self.datastore, self.sessions = datastore, sessions
        self._lock = threading.Lock()
        self._stacks: OrderedDict[Path, tuple[Stack, ...]] = OrderedDict()

    def find(self, image_id: str, session_id: str = "") -> ImageFile:
        """The image of a session if one is named, else of the datastore; raises `Refusal` 400 or 404."""
        if session_id:
            return self._session(session_id)
        if not image_id:
            raise Refusal(400, "No image was named; give the id of an image, a session or a file.")
        return self.resolve(image_id)

    def resolve(self, image_id: str) -> ImageFile:
        """An image of the datastore; raises `Refusal` 404, 422 or 502."""
        if isinstance(self.datastore, DicomDatastore):
            return self._series(self.datastore.cache, image_id)
        if image_id not in self.datastore.list_images():
            raise Refusal(404, UNKNOWN)
        path = Path(self.datastore.get_image_uri(image_id))
        if not path.exists():
            raise Refusal(404, "The file of this image has been removed from the studies.")
        return ImageFile(image_id, path)

    def _series(self, cache: SeriesCache, uid: str) -> ImageFile:
        """A DICOM series with its stacks, fetched on first use."""
        try:
            series = cache.get(uid)
        except UnknownSeries as error:
            raise Refusal(404, str(error)) from error
        except ArchiveError as error:
            raise Refusal(502, str(error)) from error
        release = cache.hold(series)
        try:
            found = self._stacks_of(series)
        finally:
            release()
        if not found:
            raise Refusal(422, "This series holds no image that can be read; ask about another one.")
        return ImageFile(uid, series.folder, found, hold=lambda: cache.hold(series))

    def _stacks_of(self, series: CachedSeries) -> tuple[Stack, ...]:
        """Headers of a series are read once; its folder never changes."""
        with self._lock:
            if series.home in self._stacks:
                self._stacks.move_to_end(series.home)
                return self._stacks[series.home]
        found = stacks(series.files)
        with self._lock:
            self._stacks[series.home] = found
            while len(self._stacks) > MAX_SERIES:
                self._stacks.popitem(last=False)
        return found

    def _session(self, session_id: str) -> ImageFile:
        if self.sessions is None:
            raise Refusal(
                404, "Sessions are switched off on this server; upload the image with the question instead."
            )
        info = self.sessions.get_session(session_id) if SESSION_ID.fullmatch(session_id) else None
        if info is None:
            raise Refusal(404, "There is no session of this id, or it has expired; upload the image again.")
        return ImageFile(f"session-{session_id}", Path(info.image))
