"""Find the DICOM files below a folder again and again, reading only what is new or has changed since.

Files are told apart by size and time of change. Symbolic links are followed only to places within the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medsegr.dicom.headers import Header, read_header

NOT_INDEXED = frozenset({"DICOMDIR"})


@dataclass(frozen=True)
class _Seen:
    """A file as it was when its header was read; `header` is None for one that is no DICOM instance."""

    stamp: tuple[int, int]
    header: Header | None


class Scanner:
    """Remembers the headers of one folder. Not for two threads at once: `DicomFolder` holds a lock around it."""

    def __init__(self, root: Path, skip: Path | None = None) -> None:
        """`skip` is a folder, perhaps below `root`, that is not looked into."""
        self.root = root.resolve()
        self.skip = skip.resolve() if skip else None
        self._seen: dict[Path, _Seen] = {}

    def scan(self) -> bool:
        """Look at every file once; returns whether anything came, went or changed."""
        found: dict[Path, _Seen] = {}
        changed = False
        for path, stamp in sorted(set(self._walk())):  # a link may lead to a file that is found anyway
            known = self._seen.get(path)
            if known is None or known.stamp != stamp:
                known = _Seen(stamp, read_header(path))
                changed = True
            found[path] = known
        changed |= len(found) != len(self._seen)
        self._seen = found
        return changed

    def headers(self) -> Iterator[Header]:
        """The headers that the last scan found, by path."""
        return (seen.header for seen in self._seen.values() if seen.header is not None)

    def _walk(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        """Files with (time of change, size). Hidden ones and what may not be read are passed over."""
        pending, visited = [self.root], set()
        while pending:
            folder = pending.pop()
            if folder in visited or folder == self.skip:
                continue
            visited.add(folder)
            try:
                with os.scandir(folder) as entries:
                    inside = [entry for entry in entries if not entry.name.startswith(".")]
            except OSError:
                continue
            for entry in inside:
                try:
                    path = Path(entry.path)
                    if entry.is_symlink() and not (path := path.resolve()).is_relative_to(self.root):
                        continue
                    if entry.is_dir():
                        pending.append(path)
                    elif entry.is_file() and entry.name not in NOT_INDEXED:
                        status = entry.stat()
                        yield path, (status.st_mtime_ns, status.st_size)
                except OSError:
                    continue
