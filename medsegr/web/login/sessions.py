"""Browsers that are logged in: a random id in a cookie, everything else on the server.

Only hashes of the ids are kept, in a private file, so a restart logs nobody out and a copy of the file lets nobody in.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medsegr.web.login.private_file import PrivateLines
from medsegr.web.login.tokens import hash_of

LIFETIME_S = 12 * 3600
"""A working day; after that everybody logs in again."""


@dataclass(frozen=True)
class Session:
    """A browser that is logged in. `token` is the hash of the static token it came with (the session ends when that token
    does), None for OIDC; `expires` is in seconds since 1970.
    """

    id: str
    user: str
    admin: bool
    token: str | None
    expires: int


class Sessions:
    """The sessions in a file; thread-safe, and shared by the processes of a server. `clock` gives seconds since 1970."""

    def __init__(
        self, path: Path, lifetime_s: int = LIFETIME_S, clock: Callable[[], float] = time.time
    ) -> None:
        self.lifetime_s, self._clock = lifetime_s, clock
        self._lines = PrivateLines(path, _parse, asdict, optional=True)

    def open(self, user: str, *, admin: bool, token: str | None = None) -> str:
        """Begin a session; returns its secret id, which only the cookie keeps. Raises `LoginFileError`."""
        secret, now = secrets.token_urlsafe(32), int(self._clock())
        made = Session(hash_of(secret), user, admin, token, now + self.lifetime_s)
        self._lines.change(lambda known: [*(s for s in known if s.expires > now), made])
        return secret

    def find(self, secret: str) -> Session | None:
        """The session of this id while it lasts; raises `LoginFileError`. (It is looked up by its hash.)"""
        wanted, now = hash_of(secret), self._clock()
        return next((s for s in self._lines.read() if s.id == wanted and s.expires > now), None)

    def close(self, secret: str) -> None:
        """End a session; an unknown one is no error."""
        gone, now = hash_of(secret), self._clock()
        self._lines.change(lambda known: [s for s in known if s.id != gone and s.expires > now])


def _parse(record: dict[str, Any]) -> Session:
    session = Session(**record)
    texts = (session.id, session.user, "" if session.token is None else session.token)
    if not all(isinstance(text, str) for text in texts) or not isinstance(session.admin, bool):
        raise ValueError
    if not isinstance(session.expires, int):
        raise ValueError
    return session
