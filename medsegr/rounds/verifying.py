"""Whether the files of a version are as they were registered. Hashing gigabytes takes seconds, so what was found is remembered
for as long as the files keep their sizes and times.
"""

from __future__ import annotations

import threading
from pathlib import Path

from medsegr.rounds.errors import StoreError
from medsegr.rounds.version_files import Hashes, digest, file_hashes

Signature = tuple[tuple[str, int, int, int], ...]
"""Of each file: its name, inode, size in bytes and time of the last change in nanoseconds."""


class Verifier:
    """What is known of versions' files, in memory; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Signature, str | None]] = {}  # locked; by name of the version

    def problem(
        self, name: str, directory: Path, sha256: str | None, files: Hashes, *, anew: bool = True
    ) -> str | None:
        """Why the version cannot be used, in one sentence; None if every file is as it was registered: `sha256` is the digest of
        `files`. Unless `anew`, what was found before holds while no file has another size or time.
        """
        signature = _signature(directory)  # before the hashes: a change meanwhile is seen the next time
        with self._lock:
            known = self._known.get(name)
        if not anew and known is not None and known[0] == signature:
            return known[1]
        try:
            hashes = file_hashes(directory) if directory.is_dir() else {}
        except StoreError as error:  # not remembered: a disk may be away for a while
            return f"Version {name} is damaged: {error}"
        problem = None if digest(hashes) == sha256 else _sentence(name, hashes, files)
        with self._lock:
            self._known[name] = signature, problem
        return problem


def _sentence(name: str, hashes: Hashes, known: Hashes) -> str:
    changed = sorted(file for file in {*hashes, *known} if hashes.get(file) != known.get(file))
    what = f"{changed[0]} is not as it was registered" if hashes else "its folder is missing"
    return f"Version {name} is damaged: {what}; restore the state folder, or promote another version."


def _signature(directory: Path) -> Signature:
    """Links are told by themselves, not by what they point to. A file that is gone meanwhile makes it another one."""
    found = []
    for path in sorted(directory.rglob("*")):
        try:
            told = path.lstat()
        except OSError:
            found.append((path.relative_to(directory).as_posix(), 0, -1, 0))
            continue
        found.append((path.relative_to(directory).as_posix(), told.st_ino, told.st_size, told.st_mtime_ns))
    return tuple(found)
