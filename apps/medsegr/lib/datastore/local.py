"""MONAI Label's folder of images, whose list of images and labels survives a server that is killed while it writes."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from pathlib import Path

from filelock import FileLock
from monailabel.datastore.local import LocalDatastore, LocalDatastoreModel
from pydantic import ValidationError

from medsegr.files import write_whole

logger = logging.getLogger(__name__)
DAMAGED = ".damaged"


class FolderDatastore(LocalDatastore):  # type: ignore[misc]
    """`LocalDatastore` of MONAI Label 0.8.5 empties `datastore_v2.json` before it writes it anew, and does not start with one
    that was cut off. Here it is put in place whole, and one that cannot be read is set aside: images and labels are found anew
    by their files; what was noted about them besides is in the file that is kept.
    """

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        path = Path(self._datastore_config_path)
        with FileLock(self._lock_file):
            if path.is_file() and not _readable(path):
                kept = path.with_name(path.name + DAMAGED)
                path.replace(kept)
                logger.error(
                    "%s could not be read and is kept as %s; the folder is listed anew.", path.name, kept.name
                )
        super()._init_from_datastore_file(throw_exception)

    def _update_datastore_file(self, lock: bool = True) -> None:
        with FileLock(self._lock_file) if lock else nullcontext():
            plain = self._datastore.model_dump(exclude={"base_path"})
            path = Path(self._datastore_config_path)
            write_whole(path, json.dumps(plain, indent=2, default=str))
            self._config_ts = path.stat().st_mtime


def _readable(path: Path) -> bool:
    try:
        LocalDatastoreModel.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        return False
    return True
