"""Files of DICOM series on this disk, bounded in size: `SeriesCache` fetches a series when it is asked for.

A series lies at `folder/UID/DIGEST/files`; the digest stands for its instances, so one that has grown in the archive is
fetched anew beside the old files, which nobody's question loses. A download goes to `folder/incoming` and is renamed when it
is complete. What was used longest ago goes first, never what is held or was used a moment ago. All of it survives a restart.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from medsegr.dicom.archive import Archive, ArchiveError, UnknownSeries
from medsegr.dicom.headers import valid_uid

logger = logging.getLogger(__name__)
MAX_BYTES = 20 * 2**30
GRACE_S = 60.0
"""For so long after it was asked for, a series stays even if nobody holds it."""
LEFTOVER_S = 3600.0
"""A download that nothing was added to for so long is a leftover of a crash."""
LINK_BYTES = 512
"""What a link to a file elsewhere counts."""


def cache_bytes(conf: Mapping[str, str]) -> int:
    """The bound that the option `cache_gib` sets; raises `ArchiveError` for what is no positive number."""
    asked = conf.get("cache_gib")
    if not asked:
        return MAX_BYTES
    try:
        gib = float(asked)
    except ValueError:
        gib = 0.0
    if not 0 < gib < float("inf"):
        raise ArchiveError("`cache_gib` is no positive number; a size in GiB such as 20 is expected.")
    return int(gib * 2**30)


@dataclass(frozen=True)
class CachedSeries:
    """The files of one series, at one time."""

    uid: str
    home: Path

    @property
    def folder(self) -> Path:
        """Holds the files and nothing else."""
        return self.home / "files"

    @property
    def files(self) -> list[Path]:
        """The files by name."""
        return sorted(self.folder.iterdir())


class SeriesCache:
    """Safe to use from any number of threads; two that ask for one series wait for one download."""

    def __init__(
        self, archive: Archive, folder: Path, max_bytes: int = MAX_BYTES, grace_s: float = GRACE_S
    ) -> None:
        self.archive, self.folder = archive, folder
        self.max_bytes, self.grace_s = max_bytes, grace_s
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}
        self._held: Counter[Path] = Counter()
        self._sizes: dict[Path, int] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._incoming.mkdir(exist_ok=True)
        self._drop_leftovers()

    @property
    def _incoming(self) -> Path:
        return self.folder / "incoming"

    def get(self, series_uid: str) -> CachedSeries:
        """The series as it is now, or as it was when the archive cannot be reached; raises `ArchiveError`."""
        if not valid_uid(series_uid):
            raise UnknownSeries(
                "There is no series of this id; a SeriesInstanceUID (digits and dots) is expected."
            )
        with self._lock:
            fetching = self._fetching.setdefault(series_uid, threading.Lock())
        with fetching:
            found = self._current(series_uid)
            _touch(found.home)
        self._evict(found.home)
        return found

    def hold(self, series: CachedSeries) -> Callable[[], None]:
        """Keep the files until the returned function is called, once or more."""
        with self._lock:
            self._held[series.home] += 1
        done = threading.Event()

        def release() -> None:
            with self._lock:
                if done.is_set():
                    return
                done.set()
                self._held[series.home] -= 1
            _touch(series.home)

        return release

    @contextmanager
    def lease(self, series_uid: str) -> Iterator[CachedSeries]:
        """`get` and `hold` for as long as the context lasts."""
        found = self.get(series_uid)
        release = self.hold(found)
        try:
            yield found
        finally:
            release()

    def _current(self, uid: str) -> CachedSeries:
        if self.archive.local:
            paths = self.archive.fetch(uid, self._incoming)
            stamps = [
                (str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.exists()
            ]
            return self._entry(uid, repr(stamps), lambda into: _link(paths, into))
        try:
            names = self.archive.instances(uid)
        except UnknownSeries:
            raise
        except ArchiveError:
            known = self._newest(uid)
            if known is None:
                raise
            logger.warning(
                "The archive cannot be asked whether a series has changed; the files at hand are used."
            )
            return known
        return self._entry(uid, "\n".join(sorted(names)), lambda into: self._download(uid, into, len(names)))

    def _download(self, uid: str, into: Path, expected: int) -> None:
        """Fetch a series; raises `ArchiveError` where less came than was listed: a gap in a stack is not seen later."""
        self.archive.fetch(uid, into)
        found = sum(1 for _ in into.iterdir())
        if found < expected:
            raise ArchiveError(
                f"The archive lists {expected} images of this series, but gave {found}; all of them are expected."
            )

    def _entry(self, uid: str, contents: str, fill: Callable[[Path], object]) -> CachedSeries:
        """The entry for these contents, filled if it is not there."""
        home = self.folder / uid / hashlib.sha256(contents.encode()).hexdigest()[:16]
        if (home / "files").is_dir():
            return CachedSeries(uid, home)
        try:
            with tempfile.TemporaryDirectory(dir=self._incoming, ignore_cleanup_errors=True) as name:
                files = Path(name) / "entry" / "files"
                files.mkdir(parents=True)
                fill(files)
                home.parent.mkdir(exist_ok=True)
                files.parent.rename(home)
        except OSError as error:
            if not (home / "files").is_dir():  # else another process was quicker
                reason = error.strerror or type(error).__name__
                raise ArchiveError(
                    f"The series cannot be kept in the cache ({reason}); room on the disk is expected."
                ) from error
        return CachedSeries(uid, home)

    def _newest(self, uid: str) -> CachedSeries | None:
        homes = [home for home in _folders(self.folder / uid) if (home / "files").is_dir()]
        return CachedSeries(uid, max(homes, key=_made)) if homes else None

    def _evict(self, asked: Path) -> None:
        """Remove versions that a newer one has replaced, then what was used longest ago until the rest fits; what was
        `asked` for just now stays.
        """
        with self._lock:
            homes = [
                h for parent in _folders(self.folder) if parent != self._incoming for h in _folders(parent)
            ]
            used = {home: _used(home) for home in homes}
            self._sizes = {home: self._sizes.get(home) or _size(home / "files") for home in homes}
            sizes = {home: self._sizes[home] + _size_beside(home) for home in homes}
            total = sum(sizes.values())
            newest = {home.parent: home for home in sorted(homes, key=_made)}
            for home in sorted(homes, key=lambda home: (newest[home.parent] == home, used[home])):
                if total <= self.max_bytes and newest[home.parent] == home:
                    break
                if home == asked or self._held[home] > 0 or time.time() - used[home] < self.grace_s:
                    continue
                total -= sizes[home]
                del self._sizes[home]
                self._remove(home)

    def _remove(self, home: Path) -> None:
        """Out of the way in one step, so that a crash leaves no half of a series."""
        with suppress(OSError):
            with tempfile.TemporaryDirectory(dir=self._incoming, ignore_cleanup_errors=True) as name:
                home.rename(Path(name) / "entry")
            home.parent.rmdir()  # unless another version is there

    def _drop_leftovers(self) -> None:
        for left in _folders(self._incoming):
            newest = max((_used(path) for path in (left, left / "entry" / "files")), default=0.0)
            if time.time() - newest > LEFTOVER_S:
                shutil.rmtree(left, ignore_errors=True)


def _link(paths: list[Path], into: Path) -> None:
    """Symbolic links whose names keep the order of `paths`."""
    for number, path in enumerate(paths):
        (into / f"{number:06d}.dcm").symlink_to(path.resolve())


def _folders(folder: Path) -> list[Path]:
    return [path for path in _inside(folder) if path.is_dir() and not path.is_symlink()]


def _size(files: Path) -> int:
    """Bytes of the files of a series, which never change; links count little."""
    total = 0
    for path in _inside(files):
        with suppress(OSError):
            total += LINK_BYTES if path.is_symlink() else path.stat().st_size if path.is_file() else 0
    return total


def _size_beside(home: Path) -> int:
    """Bytes of what others have put beside the files since (a NIfTI of them), as it is now."""
    total = 0
    for path in _inside(home):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _touch(home: Path) -> None:
    with suppress(OSError):
        os.utime(home)


def _made(home: Path) -> float:
    """When its last file came; unlike `_used`, later use changes nothing."""
    return _used(home / "files")


def _used(home: Path) -> float:
    """When it was asked for last."""
    try:
        return home.stat().st_mtime
    except OSError:
        return 0.0
