"""The user behind a request, as the guard found it; every route that stores or shows something of a user asks here."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

SCOPE_KEY = "medsegr.user"
"""Where the guard leaves the `User` in the ASGI scope."""


@dataclass(frozen=True)
class User:
    """A person or program that logged in. `admin` may read everybody's turns and the logs."""

    name: str
    admin: bool = False

    def may_see(self, editor: str) -> bool:
        """Whether turns and corrections of `editor` are this user's to see."""
        return self.admin or self.name == editor


ANONYMOUS = User("anonymous", admin=True)
"""Everybody, on a server without login."""


def current_user(connection: HTTPConnection) -> User:
    """The user of this request; `ANONYMOUS` where no guard stands in front."""
    user = connection.scope.get(SCOPE_KEY, ANONYMOUS)
    return user if isinstance(user, User) else ANONYMOUS


def login_name(connection: HTTPConnection) -> str | None:
    """The name of a user who logged in; None on a server without login."""
    user = connection.scope.get(SCOPE_KEY)
    return user.name if isinstance(user, User) else None
