"""The state folder: one database for what is said (a SQLite file by default, Postgres by its URL), and packed masks,
training slices and model versions beside it. Every store stands on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from medsegr.rounds.errors import StoreError
from medsegr.rounds.mask_files import MaskFiles
from medsegr.rounds.migrations import migrate

DATABASE = "medsegr.sqlite"
LOCK = ".opening.lock"
TURN_MASKS, CORRECTION_MASKS = "masks", "corrections"
POSTGRES = "postgresql+psycopg"
WRITERS = 0x6D656473656772
"""Postgres' advisory lock of those who read before they write: "medsegr" in ASCII."""
EXPECTED_URL = "`postgresql://user@host/name` is expected, or none for a SQLite file in the state folder."


@dataclass(frozen=True)
class Paths:
    """Folders of the state folder: model versions, the work of rounds, and training slices."""

    models: Path
    rounds: Path
    cases: Path


class Database:
    """Thread-safe access to the state under `folder`, which is created when missing. Raises `StoreError`.

    `url` is a SQLAlchemy URL; masks, slices and versions stay in `folder` whatever it is.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.paths = Paths(folder / "models", folder / "rounds", folder / "cases")
        masks = folder / TURN_MASKS, folder / CORRECTION_MASKS
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # questions and masks are about patients
            for inner in (*masks, self.paths.models, self.paths.rounds, self.paths.cases):
                inner.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The state folder {folder} cannot be created ({error.strerror}); name a writable one."
            ) from error
        self.turn_masks, self.correction_masks = (MaskFiles(inner) for inner in masks)
        self._engine = _engine(folder, url)
        with FileLock(folder / LOCK):  # SQLite does not wait for its turn to switch to a write-ahead log
            try:
                if self.is_sqlite:
                    with self._engine.connect() as connection:
                        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                migrate(self._engine)
            except OperationalError as error:
                if self.is_sqlite:
                    raise
                self._engine.dispose()
                raise StoreError(
                    f"The database {self.url.render_as_string()} cannot be used; check that it runs and lets this user in."
                ) from error

    @property
    def url(self) -> URL:
        """Where the database is; its text hides the password."""
        return self._engine.url

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file."""
        return self._engine.dialect.name == "sqlite"

    def session(self) -> Session:
        """A session of its own; use it in a `with`."""
        return Session(self._engine)

    @contextmanager
    def writing(self, session: Session | None = None) -> Iterator[Session]:
        """A transaction in which nobody else writes, so that what it reads still holds when it commits; within
        `session`, whose owner commits, if one is given.
        """
        if session is not None:
            lock_writes(session)
            yield session
            return
        with self.session() as own, own.begin():
            lock_writes(own)
            yield own

    def dispose(self) -> None:
        """Close the database's connections."""
        self._engine.dispose()


def lock_writes(session: Session) -> None:
    """Let nobody else write before this transaction ends; may be called again within it."""
    session.flush()
    connection: Connection = session.connection()
    if connection.dialect.name != "sqlite":
        connection.execute(select(func.pg_advisory_xact_lock(WRITERS)))
        return
    # The driver begins with the first change, after which the file is locked: an open transaction has the lock.
    driver: Any = connection.connection.dbapi_connection
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def now() -> str:
    """The time as it is stored: UTC, ISO 8601, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _engine(folder: Path, url: str | None) -> Engine:
    try:
        parsed = make_url(url) if url else URL.create("sqlite", database=str(folder / DATABASE))
    except ArgumentError as error:
        raise StoreError(f"The database's URL cannot be read; {EXPECTED_URL}") from error
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername=POSTGRES)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, hide_parameters=True)
        event.listen(engine, "connect", _set_pragmas)
        return engine
    if parsed.drivername != POSTGRES:
        raise StoreError(f"The database's URL begins with `{parsed.drivername}`; {EXPECTED_URL}")
    try:
        return create_engine(parsed, hide_parameters=True, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise StoreError(
            "A Postgres database needs the package psycopg; install it with `pip install 'medsegr[postgres]'`."
        ) from error


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # FULL: what was acknowledged is on the disk, also if the power fails in the next moment.
    for pragma in ("busy_timeout=10000", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
