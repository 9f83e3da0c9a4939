"""Who is behind a request: a bearer token (static or the issuer's), or the cookie of a session.

Every way of failing gives the same answer: whether a token never existed, has expired or was taken away is nobody's
business. Failures are counted per address; see `Throttle`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from medsegr.web.errors import Refusal
from medsegr.web.login.identity import User
from medsegr.web.login.issuer import BadToken, Issuer
from medsegr.web.login.origins import cookie_counts
from medsegr.web.login.private_file import LoginFileError
from medsegr.web.login.sessions import Sessions
from medsegr.web.login.throttle import Throttle
from medsegr.web.login.tokens import TokenFile, hash_of

logger = logging.getLogger(__name__)
UNKNOWN = "Log in first: open /medsegr/login in a browser, or send the header `Authorization: Bearer TOKEN`."
FOREIGN = "Another web page sent this request with your login; it is refused."
BROKEN = "The server's login file cannot be used, so nobody can log in; its log says why."
COOKIE, SECURE_COOKIE = "medsegr", "__Host-medsegr"


class How(StrEnum):
    """Which kind of login a server, or a user, has."""

    OFF = "off"
    TOKENS = "tokens"
    OIDC = "oidc"


class Throttled(Refusal):
    """Too many failed logins from an address."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(429, f"Too many failed logins from this address; try again in {wait_s} seconds.")
        self.wait_s = wait_s


@dataclass(frozen=True)
class Visitor:
    """A user who is logged in, how, and the secret of the session if the request came with one."""

    user: User
    how: How
    session: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Login:
    """The logins of a server: `tokens`, `issuer` or both. `public_url` is the address that browsers know the server by,
    if it cannot be told from their requests; `trusted` are origins of other pages that may use a session.
    """

    sessions: Sessions
    tokens: TokenFile | None = None
    issuer: Issuer | None = None
    public_url: str | None = None
    trusted: Collection[str] = ()
    throttle: Throttle = field(default_factory=Throttle)

    async def visitor(self, connection: HTTPConnection) -> Visitor:
        """Who sent this request; raises `Refusal` 401, 403, 429 or 503."""
        authorization = connection.headers.get("authorization")
        if authorization is not None:
            kind, _, token = authorization.partition(" ")
            if kind.lower() != "bearer":
                raise Refusal(401, UNKNOWN)
            return await self.by_token(token.strip(), address_of(connection))
        secret = connection.cookies.get(cookie_name(connection))
        found = self._by_session(secret) if secret else None
        if found is None:
            raise Refusal(401, UNKNOWN)
        if not cookie_counts(connection, self.trusted):
            raise Refusal(403, FOREIGN)
        return found

    async def by_token(self, token: str, address: str) -> Visitor:
        """The user of a token that somebody at `address` sent; raises `Refusal` 401, 429 or 503."""
        try:
            entry = self.tokens.find(token) if self.tokens else None
            if entry is not None:  # never held up: others' failures behind the same proxy are not this user's
                return Visitor(entry.as_user(), How.TOKENS)
            wait_s = self.throttle.wait_s(address)
            if wait_s:
                raise Throttled(wait_s)
            if self.issuer is not None and token.count(".") == 2:
                return Visitor(await self.issuer.user(token), How.OIDC)
        except LoginFileError as error:
            raise _broken(error) from None
        except BadToken as error:
            logger.info("A token from %s was refused: %s.", address, error)
        self.throttle.failed(address)
        logger.warning("A login from %s failed.", address)
        raise Refusal(401, UNKNOWN)

    async def open_session(self, visitor: Visitor, token: str | None = None) -> str:
        """Begin a browser's session; returns the secret for its cookie. A static `token` ends it when it ends itself."""
        bound = hash_of(token) if token is not None else None
        name, admin = visitor.user.name, visitor.user.admin
        try:
            return await run_in_threadpool(self.sessions.open, name, admin=admin, token=bound)
        except LoginFileError as error:
            raise _broken(error) from None

    async def close_session(self, secret: str) -> None:
        """End a session."""
        try:
            await run_in_threadpool(self.sessions.close, secret)
        except LoginFileError as error:
            raise _broken(error) from None

    def _by_session(self, secret: str) -> Visitor | None:
        try:
            session = self.sessions.find(secret)
            if session is None:
                return None
            if session.token is None:
                user = User(session.user, session.admin)
                return Visitor(user, How.OIDC, secret) if self.issuer else None
            entry = self.tokens.by_hash(session.token) if self.tokens else None
            return Visitor(entry.as_user(), How.TOKENS, secret) if entry else None
        except LoginFileError as error:
            raise _broken(error) from None


def _broken(error: LoginFileError) -> Refusal:
    logger.error("%s", error)
    return Refusal(503, BROKEN)


def address_of(connection: HTTPConnection) -> str:
    """The client's address; "unknown" for what has none (a Unix socket)."""
    return connection.client.host if connection.client else "unknown"


def is_secure(connection: HTTPConnection, public_url: str | None = None) -> bool:
    """Whether the browser's side of the connection is encrypted."""
    return connection.url.scheme in ("https", "wss") or (public_url or "").startswith("https://")


def cookie_name(connection: HTTPConnection) -> str:
    """The session's cookie: with https under a name that no other host of the domain can set."""
    return SECURE_COOKIE if connection.url.scheme in ("https", "wss") else COOKIE
