"""Which file stands behind an image id. Ids come from clients: only the datastore and sessions are believed,
never a path.
"""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path

from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.sessions import Sessions

from medsegr.web.errors import Refusal
from medsegr.web.service import ImageFile

logger = logging.getLogger(__name__)
UID = re.compile(r"[0-9]+(\.[0-9]+)*")
SESSION_ID = re.compile(r"[0-9A-Fa-f-]{36}")
UNKNOWN = (
    "There is no image of this id among the studies; `GET /datastore/?output=all` lists those that exist."
)


class Images:
    """Finds images in a datastore or among uploaded sessions."""

    def __init__(self, datastore: Datastore, sessions: Sessions | None) -> None:
        self.datastore, self.sessions = datastore, sessions
        self._fetching = tuple(threading.Lock() for _ in range(16))

    def find(self, image_id: str, session_id: str = "") -> ImageFile:
        """The image of a session if one is named, else of the datastore; raises `Refusal` 400 or 404."""
        if session_id:
            return self._session(session_id)
        if not image_id:
            raise Refusal(400, "No image was named; give the id of an image, a session or a file.")
        return self.resolve(image_id)

    def resolve(self, image_id: str) -> ImageFile:
        """An image of the datastore; raises `Refusal` 404 or 502."""
        if isinstance(self.datastore, DICOMWebDatastore):
            return self._series(self.datastore, image_id)
        if image_id not in self.datastore.list_images():
            raise Refusal(404, UNKNOWN)
        path = Path(self.datastore.get_image_uri(image_id))
        if not path.exists():
            raise Refusal(404, "The file of this image has been removed from the studies.")
        return ImageFile(image_id, path)

    def _series(self, datastore: DICOMWebDatastore, uid: str) -> ImageFile:
        """A DICOM series, fetched on first use. Its files are preferred over MONAI Label's NIfTI: they know
        the modality.
        """
        if len(uid) > 64 or not UID.fullmatch(uid):
            raise Refusal(
                404, "There is no image of this id: a SeriesInstanceUID (digits and dots) is expected."
            )
        folder = Path(datastore._datastore.image_path()).resolve() / uid
        try:
            with self._fetching[hash(uid) % len(self._fetching)]:  # a second user must not read half a series
                datastore.get_image_uri(uid)
        except Exception as error:  # noqa: BLE001  # many kinds; files may be there all the same
            logger.warning("The datastore could not prepare a series (%s).", type(error).__name__)
        if folder.is_dir() and any(folder.glob("*.dcm")):
            return ImageFile(uid, folder)
        raise Refusal(404, "The DICOMweb server has no series of this UID, or could not be reached.")

    def _session(self, session_id: str) -> ImageFile:
        if self.sessions is None:
            raise Refusal(
                404, "Sessions are switched off on this server; upload the image with the question instead."
            )
        info = self.sessions.get_session(session_id) if SESSION_ID.fullmatch(session_id) else None
        if info is None:
            raise Refusal(404, "There is no session of this id, or it has expired; upload the image again.")
        return ImageFile(f"session-{session_id}", Path(info.image))
