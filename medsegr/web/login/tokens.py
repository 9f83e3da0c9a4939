"""Static tokens: who may come in, by a file that holds hashes only.

A token is 256 random bits, so its plain SHA-256 cannot be turned back by trying: there is nothing to guess, unlike with a
password, and a slow hash (bcrypt, Argon2) would only slow every request down. The file is read again when it changes:
whoever is removed from it is out with the next request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from medsegr.errors import MedSegRError
from medsegr.web.login.identity import ANONYMOUS, User
from medsegr.web.login.private_file import PrivateLines

PREFIX = "medsegr_"
TOKEN = re.compile(r"medsegr_[A-Za-z0-9_-]{43}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,59}")
DIGEST = re.compile(r"[0-9a-f]{64}")


class TokenError(MedSegRError):
    """A token cannot be made or removed as asked."""


@dataclass(frozen=True)
class TokenEntry:
    """One line of the file. `expires` is the last day (UTC) on which the token is good; None for ever."""

    user: str
    sha256: str
    admin: bool = False
    expires: date | None = None

    def good_on(self, day: date) -> bool:
        """Whether the token has not expired."""
        return self.expires is None or day <= self.expires

    def as_user(self) -> User:
        """Whom the token stands for."""
        return User(self.user, self.admin)


def hash_of(token: str) -> str:
    """SHA-256 of a token in hexadecimal digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def today() -> date:
    """The day in UTC."""
    return datetime.now(UTC).date()


class TokenFile:
    """The tokens in a file; see `PrivateLines` about reading. `clock` gives the day in UTC."""

    def __init__(self, path: Path, clock: Callable[[], date] = today) -> None:
        self.path, self._clock = path, clock
        self._lines = PrivateLines(path, _parse, _record)
        self._growing = PrivateLines(path, _parse, _record, optional=True)

    def entries(self) -> tuple[TokenEntry, ...]:
        """Every entry, expired ones too; raises `LoginFileError`."""
        return self._lines.read()

    def find(self, token: str) -> TokenEntry | None:
        """The entry of a token that is good today; raises `LoginFileError`."""
        return self.by_hash(hash_of(token))

    def by_hash(self, sha256: str) -> TokenEntry | None:
        """The entry of this hash that is good today. Every entry is compared, each in constant time, so how long it takes
        tells nothing about the file.
        """
        found = None
        for entry in self.entries():
            if hmac.compare_digest(entry.sha256.encode(), sha256.encode()):
                found = entry
        return found if found is not None and found.good_on(self._clock()) else None

    def add(self, user: str, *, admin: bool = False, days: int | None = None) -> str:
        """Make a token for a new user and return it: only its hash is kept. Raises `TokenError`, `LoginFileError`."""
        if not NAME.fullmatch(user) or user.casefold() == ANONYMOUS.name:
            raise TokenError(
                f"A user's name has 1 to 60 letters, digits or . _ @ + -, begins with a letter or digit, and is not "
                f"'{ANONYMOUS.name}'."
            )
        if days is not None and not 1 <= days <= 36500:
            raise TokenError("A token is good for 1 to 36500 days.")
        token = PREFIX + secrets.token_urlsafe(32)
        last = None if days is None else self._clock() + timedelta(days=days)
        made = TokenEntry(user, hash_of(token), admin, last)

        def edit(entries: tuple[TokenEntry, ...]) -> tuple[TokenEntry, ...]:
            if any(entry.user.casefold() == user.casefold() for entry in entries):
                raise TokenError(
                    f"'{user}' has a token already; `medsegr login remove {user}` takes it away."
                )
            return (*entries, made)

        self._growing.change(edit)
        return token

    def remove(self, user: str) -> None:
        """Take a user's token away; raises `TokenError` if there is no such user."""

        def edit(entries: tuple[TokenEntry, ...]) -> tuple[TokenEntry, ...]:
            kept = tuple(entry for entry in entries if entry.user != user)
            if len(kept) == len(entries):
                raise TokenError(
                    f"{self.path} has no user '{user}'; `medsegr login list` names those that it has."
                )
            return kept

        self._lines.change(edit)


def _parse(record: dict[str, Any]) -> TokenEntry:
    user, sha256, admin = record["user"], record["sha256"], record.get("admin", False)
    expires = record.get("expires")
    if not isinstance(user, str) or not NAME.fullmatch(user) or user.casefold() == ANONYMOUS.name:
        raise ValueError
    if not isinstance(sha256, str) or not DIGEST.fullmatch(sha256) or not isinstance(admin, bool):
        raise ValueError
    return TokenEntry(user, sha256, admin, None if expires is None else date.fromisoformat(expires))


def _record(entry: TokenEntry) -> dict[str, Any]:
    record: dict[str, Any] = {"user": entry.user, "sha256": entry.sha256, "admin": entry.admin}
    return record | ({"expires": entry.expires.isoformat()} if entry.expires else {})
