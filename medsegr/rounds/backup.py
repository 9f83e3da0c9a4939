"""Backup and restore of a state folder: one zip file with the database, the masks, the training slices, the versions and
the key of the patients' hashes. It is as confidential as the folder itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from medsegr import __version__
from medsegr.rounds.database import CORRECTION_MASKS, DATABASE, TURN_MASKS, Database, now
from medsegr.rounds.errors import DAMAGED_ZIP, StoreError
from medsegr.rounds.leftovers import PENDING
from medsegr.rounds.migrations import SCHEMA
from medsegr.rounds.patients import KEY_FILE
from medsegr.rounds.starting import WORK

MANIFEST = "medsegr-backup.json"
FORMAT = 1
ALONG = (PENDING, TURN_MASKS, CORRECTION_MASKS, "cases", "models", "labels", "rounds", "skipped.jsonl")
"""What goes along with the database; `PENDING` is what removals of patients have still to delete (first, or one that ends
meanwhile would be missed), `labels` are the label maps of a DICOM archive's images, `rounds` the pages and records of rounds.
Caches and logins do not go along, nor does what a round is training."""
EXPECTED = "a file that `medsegr state backup` wrote is expected"


@dataclass(frozen=True)
class Contents:
    """What a backup holds: when it was made, the database's schema, and how many files and bytes."""

    created: str
    schema: int
    files: int
    bytes: int


def backup(database: Database, target_zip: Path) -> Contents:
    """Write everything to `target_zip`, whole or not at all, mode 0600; the server may go on working.

    The database is copied first, at one instant; files are only ever added, before rows speak of them, so each of its rows has
    its files. Raises `StoreError` where the target exists or cannot be written, and for a Postgres database.
    """
    if not database.is_sqlite:
        raise StoreError(
            "A Postgres database is backed up with its own tools: run `pg_dump` for it, and copy the state folder after that."
        )
    if target_zip.exists():
        raise StoreError(f"{target_zip} exists already; name a new file for the backup.")
    draft = target_zip.with_name(f".{target_zip.name}.{os.getpid()}.part")
    try:
        with tempfile.TemporaryDirectory(prefix="medsegr-", dir=target_zip.parent) as folder:
            copy = Path(folder) / DATABASE
            _copy_database(Path(database.url.database or ""), copy)
            contents = _write(database.folder, copy, draft)
        draft.replace(target_zip)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise StoreError(f"{target_zip} cannot be written ({reason}).") from error
    finally:
        draft.unlink(missing_ok=True)
    return contents


def restore(backup_zip: Path, folder: Path) -> Contents:
    """Make the state `folder`, which must be missing or empty, of a backup: whole or not at all. Every file is compared with
    its hash. Raises `StoreError`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} is not empty; name a new folder to restore into.")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        draft.mkdir(mode=0o700, parents=True)
        with zipfile.ZipFile(backup_zip) as archive:
            manifest = _manifest(archive)
            for name, expected in manifest["files"].items():
                _extract(archive, name, expected, draft)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except (sqlite3.Error, TypeError, *DAMAGED_ZIP) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{backup_zip.name} is damaged or no backup; {EXPECTED}.") from error
    except OSError as error:
        raise StoreError(
            f"{backup_zip.name} cannot be restored to {folder} ({error.strerror or error}); {EXPECTED}."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return _contents(manifest)


def _copy_database(source: Path, target: Path) -> None:
    """SQLite's online backup: a copy as of one instant, also while others write."""
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # all of it in the one file


def _write(folder: Path, database: Path, target: Path) -> Contents:
    hashes: dict[str, str] = {}
    total = 0
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w+b") as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, path in ((DATABASE, database), *_files(folder)):
                packed = path.suffix in (".npz", ".safetensors", ".gz")
                try:
                    info = zipfile.ZipInfo.from_file(path, name)
                    info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
                    with path.open("rb") as source:
                        digest = hashlib.sha256()
                        with archive.open(info, "w") as sink:
                            while block := source.read(1 << 20):
                                digest.update(block)
                                sink.write(block)
                                total += len(block)
                except FileNotFoundError:
                    continue  # removed since it was listed, with its patient
                hashes[name] = digest.hexdigest()
            manifest = {
                "format": FORMAT,
                "created": now(),
                "schema": SCHEMA,
                "code": __version__,
                "bytes": total,
                "files": hashes,
            }
            archive.writestr(MANIFEST, json.dumps(manifest))
        stream.flush()
        os.fsync(stream.fileno())
    return _contents(manifest)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name in the zip, path) of everything beside the database; drafts, whose names begin with a dot, are left out."""
    if (folder / KEY_FILE).exists():
        yield KEY_FILE, folder / KEY_FILE
    for inner in ALONG:
        whole = folder / inner
        for path in [whole] if whole.is_file() else sorted(whole.rglob("*")):
            name = path.relative_to(folder)
            passing = any(part.startswith(".") or fnmatch(part, WORK) for part in name.parts)
            if path.is_file() and not passing:
                yield name.as_posix(), path


def _manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(archive.read(MANIFEST))
    if manifest["format"] != FORMAT or int(manifest["schema"]) > SCHEMA:
        raise StoreError("This backup was written by a newer medsegr; update this one to restore it.")
    if DATABASE not in manifest["files"]:
        raise ValueError("no database")
    return manifest


def _extract(archive: zipfile.ZipFile, name: str, expected: str, folder: Path) -> None:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\\" in name:
        raise ValueError("a name that leaves the folder")
    target = folder.joinpath(*parts)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = archive.getinfo(name)
    digest = hashlib.sha256()
    with archive.open(info) as source, target.open("xb") as sink:
        while block := source.read(1 << 20):
            digest.update(block)
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
    if digest.hexdigest() != expected:
        raise ValueError("a file is not as it was saved")
    mode = (info.external_attr >> 16) & 0o777
    target.chmod(0o600 if name in (KEY_FILE, DATABASE) else mode or 0o600)


def _contents(manifest: dict[str, Any]) -> Contents:
    return Contents(
        manifest["created"], int(manifest["schema"]), len(manifest["files"]), int(manifest["bytes"])
    )
