"""The append-only log of verdicts beside a MedSeg-QA file: JSON Lines, one verdict a line, on the disk when `append` returns.

Several processes may write at once. A crash in mid-write leaves at most an unfinished last line, which was never
acknowledged: readers ignore it and the next writer removes it.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from medsegr.errors import QAFileError
from medsegr.qa.review.entries import Entry, ReviewError

SUFFIX = ".reviews.jsonl"
LOCK_TIMEOUT_S = 10.0


def log_path_of(file: Path) -> Path:
    """Where the verdicts about `file` are kept unless the user says otherwise: FILE.reviews.jsonl."""
    return file.with_name(file.name + SUFFIX)


class ReviewLog:
    """Reads and appends entries; safe to share between threads. Reading again costs only what was added since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_TIMEOUT_S)
        self._reading = threading.Lock()
        self._entries: list[Entry] = []
        self._offset, self._lines = 0, 0

    def entries(self) -> list[Entry]:
        """All entries in the order in which they were written; none if there is no log yet.

        Raises `QAFileError` naming file and line where a finished line is no entry.
        """
        with self._reading:
            try:
                with self.path.open("rb") as stream:
                    if (
                        os.fstat(stream.fileno()).st_size < self._offset
                    ):  # somebody put another file in its place
                        self._forget()
                    stream.seek(self._offset)
                    added = stream.read()
            except FileNotFoundError:
                self._forget()
                return []
            except OSError as error:
                raise QAFileError(
                    f"{self.path} cannot be read ({error.strerror}); expected a review log."
                ) from error
            finished, last = _split(added)
            for line in finished:
                if line.strip():
                    self._entries.append(self._parse(line))
                self._offset += len(line)
                self._lines += 1
            return [*self._entries, *([last] if last else [])]

    def append(self, entry: Entry) -> None:
        """Write one entry and wait until the disk has it; raises `ReviewError` while another writer holds the log."""
        line = json.dumps(entry.to_json(), ensure_ascii=False).encode() + b"\n"
        try:
            with self._lock:
                created = not self.path.exists()
                with self.path.open("ab+") as stream:
                    _mend(stream)
                    stream.write(line)
                    stream.flush()
                    os.fsync(stream.fileno())
                if created:
                    _sync_folder(self.path.parent)
        except Timeout as error:
            raise ReviewError(
                f"Another program has held {self.path.name} for {LOCK_TIMEOUT_S:.0f} s; nothing was written, try again."
            ) from error

    def _forget(self) -> None:
        self._entries, self._offset, self._lines = [], 0, 0

    def _parse(self, line: bytes) -> Entry:
        try:
            return Entry.from_json(json.loads(line))
        except ValueError as error:  # broken JSON, broken UTF-8, or a `QAFileError` about a field
            raise QAFileError(f"{self.path.name}:{self._lines + 1}: {error}") from error


def _split(data: bytes) -> tuple[list[bytes], Entry | None]:
    """Finished lines, and the entry of an unfinished last line if only its line end is missing."""
    *finished, rest = data.split(b"\n")
    try:
        last = Entry.from_json(json.loads(rest)) if rest else None
    except ValueError:
        last = None
    return [line + b"\n" for line in finished], last


def _mend(stream: BinaryIO) -> None:
    """Finish or remove an unfinished last line, so that the next one starts at the left."""
    if not stream.seek(0, os.SEEK_END):
        return
    stream.seek(-1, os.SEEK_END)
    if stream.read(1) == b"\n":
        return
    stream.seek(0)
    data = stream.read()
    if _split(data)[1]:
        stream.write(b"\n")
    else:
        stream.truncate(data.rfind(b"\n") + 1)
        stream.seek(0, os.SEEK_END)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable too, where the system can (POSIX)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
