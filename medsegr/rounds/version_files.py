"""Version directories on disk: hashed, shared with earlier versions where nothing changed, on the disk before they count,
and read-only from then on.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medsegr.files import sync
from medsegr.rounds.errors import StoreError

META, CONFIG = "meta.json", "config.json"
Hashes = dict[str, str]
"""File, relative to the directory -> hexadecimal SHA-256 of its bytes."""


def file_hashes(directory: Path) -> Hashes:
    """Of every file in `directory`; raises `StoreError` for a directory that is no checkpoint, or holds links."""
    found: Hashes = {}
    try:
        for path in sorted(directory.rglob("*")):
            if path.is_symlink():
                raise StoreError(f"{path.name} in the version's folder is a link; plain files are expected.")
            if path.is_file():
                with path.open("rb") as file:
                    found[path.relative_to(directory).as_posix()] = hashlib.file_digest(
                        file, "sha256"
                    ).hexdigest()
    except OSError as error:
        raise StoreError(f"A file of the version cannot be read ({error.strerror}).") from error
    if missing := [name for name in (CONFIG, META) if name not in found]:
        raise StoreError(f"The folder of a version must hold {CONFIG} and {META}; {missing[0]} is missing.")
    return found


def digest(hashes: Mapping[str, str]) -> str:
    """One SHA-256 over names and hashes of files."""
    lines = "".join(f"{name}\0{hash_}\n" for name, hash_ in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises `StoreError`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path.name} of a version cannot be read ({type(error).__name__}); a JSON object is expected."
        ) from error
    if not isinstance(data, dict):
        raise StoreError(f"{path.name} of a version must hold a JSON object.")
    return data


def write_meta(directory: Path, meta: Mapping[str, Any]) -> None:
    """Replace `meta.json`, never half of it, and never through a hard link."""
    fresh = directory / f".{META}-{uuid.uuid4().hex}"
    fresh.write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.replace(directory / META)


def share(directory: Path, hashes: Hashes, known: Mapping[tuple[str, str], Path]) -> None:
    """Replace files by hard links to equal ones of earlier versions; `known`: (name, hash) -> that file. A file that cannot be
    linked stays a copy.
    """
    for name, hash_ in hashes.items():
        earlier = known.get((name, hash_))
        own = directory / name
        if earlier is None or not earlier.is_file() or earlier.samefile(own):
            continue
        link = own.with_name(f".{own.name}-{uuid.uuid4().hex}")
        try:
            os.link(earlier, link)
        except OSError:  # another file system, or one that has no links
            continue
        with link.open("rb") as file:  # a damaged file must not spread
            whole = hashlib.file_digest(file, "sha256").hexdigest() == hash_
        if whole:
            link.replace(own)
        else:
            link.unlink()


def place(work: Path, target: Path) -> None:
    """Move a finished directory to its place with one rename, once everything in it is on the disk; from another file system
    it is copied beside the place first. Raises `OSError`.
    """
    _settle(work)
    try:
        work.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".new-{uuid.uuid4().hex}")
        shutil.copytree(work, beside)
        _settle(beside)
        beside.rename(target)
        remove(work)
    target.chmod(0o555)
    sync(target.parent)


def remove(directory: Path) -> None:
    """Delete a directory, also a read-only one."""
    for folder in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    shutil.rmtree(directory)


def _settle(directory: Path) -> None:
    """Make files read-only and have everything on the disk. The directory itself stays writable: it is to be moved."""
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir():
            path.chmod(0o755)
        else:
            path.chmod(0o444)
        sync(path)
    sync(directory)
    for path in directory.rglob("*"):
        if path.is_dir():
            path.chmod(0o555)
