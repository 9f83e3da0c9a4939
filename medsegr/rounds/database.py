"""The state folder: one SQLite file for what is said, and packed masks beside it. Every store stands on it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session

from medsegr.rounds.errors import StoreError
from medsegr.rounds.mask_files import MaskFiles
from medsegr.rounds.migrations import migrate

DATABASE = "medsegr.sqlite"
LOCK = ".opening.lock"
TURN_MASKS, CORRECTION_MASKS = "masks", "corrections"


class Database:
    """Thread-safe access to the state under `folder`, which is created when missing. Raises `StoreError`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # questions and masks are about patients
            for name in (TURN_MASKS, CORRECTION_MASKS):
                (folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The state folder {folder} cannot be created ({error.strerror}); name a writable one."
            ) from error
        self.turn_masks = MaskFiles(folder / TURN_MASKS)
        self.correction_masks = MaskFiles(folder / CORRECTION_MASKS)
        self._engine = create_engine(f"sqlite:///{folder / DATABASE}", hide_parameters=True)
        event.listen(self._engine, "connect", _set_pragmas)
        with FileLock(folder / LOCK):  # SQLite does not wait for its turn to switch to a write-ahead log
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            migrate(self._engine)

    def session(self) -> Session:
        """A session of its own; use it in a `with`."""
        return Session(self._engine)

    def dispose(self) -> None:
        """Close the database's connections."""
        self._engine.dispose()


def now() -> str:
    """The time as it is stored: UTC, ISO 8601, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # FULL: what was acknowledged is on the disk, also if the power fails in the next moment.
    for pragma in ("busy_timeout=10000", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
