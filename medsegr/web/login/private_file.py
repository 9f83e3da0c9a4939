"""Small files of secrets: readable by their owner only, replaced whole, and read again when they change.

Token files, sessions and the owner's token live in them. A file that others may read is refused, as ssh does.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock

from medsegr.errors import MedSegRError

OTHERS = stat.S_IRWXG | stat.S_IRWXO
LOCK_S = 10.0


class LoginFileError(MedSegRError):
    """A file of secrets is missing, readable by others, or not in its format."""


def read_private(path: Path) -> str:
    """The text of a file that only its owner can read; raises `LoginFileError`."""
    try:
        with path.open(encoding="utf-8") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            if os.name != "nt" and mode & OTHERS:
                raise LoginFileError(
                    f"{path} has mode {mode:04o}, so others on this machine can read or change it; "
                    f"expected 0600 (`chmod 600 {path}`)."
                )
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise LoginFileError(f"{path} cannot be read ({reason}); expected a file of this user's.") from error


def write_private(path: Path, text: str) -> None:
    """Put `text` in place of `path`, mode 0600 from the first byte on and of the same owner as before."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        _keep_owner(path, draft)
        draft.replace(path)
    except OSError as error:
        raise LoginFileError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        draft.unlink(missing_ok=True)


def _keep_owner(path: Path, draft: Path) -> None:
    """Root may add a user to the file of the account that serves; it stays that account's."""
    if not path.exists() or os.name == "nt":
        return
    was, made = path.stat(), draft.stat()
    if (was.st_uid, was.st_gid) != (made.st_uid, made.st_gid):
        os.chown(draft, was.st_uid, was.st_gid)


Entry = TypeVar("Entry")


class PrivateLines(Generic[Entry]):
    """A private file of JSON Lines. `read` costs one `stat` while the file stays as it is.

    `parse` makes an entry of one object and raises ValueError or KeyError; `record` is its inverse.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[dict[str, Any]], Entry],
        record: Callable[[Entry], dict[str, Any]],
        *,
        optional: bool = False,
    ) -> None:
        self.path, self._parse, self._record, self._optional = path, parse, record, optional
        self._seen: tuple[int, ...] | None = None
        self._entries: tuple[Entry, ...] = ()
        self._reading = threading.Lock()

    def read(self) -> tuple[Entry, ...]:
        """Every entry as the file has it now; raises `LoginFileError`. A missing file is empty if it is `optional`."""
        try:
            state = self.path.stat()
        except FileNotFoundError as error:
            if self._optional:
                return ()
            raise LoginFileError(f"{self.path} does not exist; `medsegr login add` makes it.") from error
        except OSError as error:
            raise LoginFileError(f"{self.path} cannot be read ({error.strerror}).") from error
        mark = (state.st_mtime_ns, state.st_size, state.st_ino, state.st_mode)
        with self._reading:
            if mark != self._seen:
                self._seen = None  # a file that cannot be read lets nobody in, least of all from memory
                self._entries = tuple(self._parsed(read_private(self.path)))
                self._seen = mark
            return self._entries

    def change(self, edit: Callable[[tuple[Entry, ...]], Iterable[Entry]]) -> None:
        """Replace the entries by what `edit` makes of them; other processes wait. Raises `LoginFileError`."""
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=LOCK_S, mode=0o600)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:  # a timeout is one as well
            raise LoginFileError(
                f"{self.path} cannot be changed ({error.strerror or 'it is locked'})."
            ) from error
        try:
            kept = edit(self.read())
            lines = [json.dumps(self._record(entry), ensure_ascii=False) for entry in kept]
            write_private(self.path, "".join(f"{line}\n" for line in lines))
        finally:
            lock.release()

    def _parsed(self, text: str) -> Iterable[Entry]:
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError
                yield self._parse(record)
            except (ValueError, KeyError, TypeError) as error:
                raise LoginFileError(
                    f"{self.path} line {number} is not an entry of this file; expected one JSON object a line, "
                    "as `medsegr login add` writes it."
                ) from error
