"""The guard in front of every route: nothing gets past without a user, except a few named pages.

Pure ASGI, so it can be put around an application that has started already, stands in front of mounted files and
websockets as well, and never holds a stream back. What it lets in carries its `User` in the scope and no secret: neither
the bearer token nor the session's cookie reaches a route (or a PACS behind one).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medsegr.web.errors import Refusal
from medsegr.web.login.identity import SCOPE_KEY
from medsegr.web.login.login import COOKIE, SECURE_COOKIE, Login, Throttled, Visitor
from medsegr.web.login.origins import cookie_counts, from_local_page, host_name, is_loopback

VISITOR_KEY = "medsegr.visitor"
PUBLIC = frozenset({"/medsegr/healthz", "/medsegr/readyz", "/medsegr/login", "/auth/", "/auth/token"})
PUBLIC_BELOW = "/medsegr/login/"
ADMIN_ONLY = "This is for administrators of the server."
ELSEWHERE = (
    "This server has no login and answers only to localhost; to reach it under another name, set a login up "
    "(`--conf login FILE`) or do without in so many words (`--conf login off`)."
)
FOREIGN_PAGE = (
    "A web page of another server sent this request; this server has no login, so only pages of this machine and of "
    "MONAI_LABEL_CORS_ORIGINS may."
)
WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ALL = None
ADMIN: tuple[tuple[str, frozenset[str] | None], ...] = (
    ("/logs", ALL),
    ("/reload", ALL),
    ("/model", ALL),
    ("/train", WRITING),
    ("/medsegr/rounds", WRITING),
    ("/medsegr/models", WRITING),
    ("/medsegr/withdrawals", ALL),
    ("/medsegr/patients", ALL),
    ("/batch", WRITING),
    ("/datastore", frozenset({"DELETE"})),
)
"""Paths, with what is below them, and the methods that are for administrators: those of MONAI Label and of the learning loop."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "SAMEORIGIN",
    "Content-Security-Policy": "frame-ancestors 'self'",
}


@dataclass(frozen=True)
class Guard:
    """Wraps `app`. Without a `login` everybody is `anonymous`; `only_local` then refuses requests that call the server by
    another name than localhost (a web page could otherwise make its own name point here), and those of web pages elsewhere
    that are not `trusted` (MONAI Label lets every page read its answers). `prefix` is that of the routes.
    """

    app: ASGIApp
    login: Login | None
    only_local: bool = False
    prefix: str = ""
    trusted: Collection[str] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            inner = await self._admitted(connection)
        except Refusal as refusal:
            await self._refuse(connection, refusal, receive, _with_headers(send))
            return
        await self.app(inner, receive, _with_headers(send))

    async def _admitted(self, connection: HTTPConnection) -> Scope:
        """The scope that the application may see; raises `Refusal`."""
        scope = connection.scope
        if self.login is None:
            if self.only_local:
                self._check_local(connection)
            return scope
        path = self._route_path(scope)
        if path in PUBLIC or path.startswith(PUBLIC_BELOW) or self._is_preflight(connection):
            return scope
        visitor = await self.login.visitor(connection)
        if not visitor.user.admin and _needs_admin(path, scope.get("method", "GET")):
            raise Refusal(403, ADMIN_ONLY)
        return _without_secrets(scope) | {SCOPE_KEY: visitor.user, VISITOR_KEY: visitor}

    def _check_local(self, connection: HTTPConnection) -> None:
        if not is_loopback(host_name(connection)):
            raise Refusal(403, ELSEWHERE)
        if not cookie_counts(connection, self.trusted) and not from_local_page(connection):
            raise Refusal(403, FOREIGN_PAGE)

    def _route_path(self, scope: Scope) -> str:
        """The path as the routes know it: without the server's root path and without `prefix`."""
        path, root = str(scope["path"]), str(scope.get("root_path", ""))
        if root and (path == root or path.startswith(root + "/")):
            path = path[len(root) :]
        if self.prefix and (path == self.prefix or path.startswith(self.prefix + "/")):
            path = path[len(self.prefix) :]
        return path

    def _is_preflight(self, connection: HTTPConnection) -> bool:
        """A CORS preflight of a trusted page: browsers send it without a login, and the CORS middleware answers it."""
        headers = connection.headers
        return (
            self.login is not None
            and connection.scope.get("method") == "OPTIONS"
            and "access-control-request-method" in headers
            and headers.get("origin", "").rstrip("/").lower() in self.login.trusted
        )

    async def _refuse(
        self, connection: HTTPConnection, refusal: Refusal, receive: Receive, send: Send
    ) -> None:
        scope = connection.scope
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        await self._reply(connection, refusal)(scope, receive, send)

    def _reply(self, connection: HTTPConnection, refusal: Refusal) -> Response:
        scope, headers = connection.scope, {"Cache-Control": "no-store"}
        opens_page = scope["method"] in ("GET", "HEAD") and "text/html" in connection.headers.get(
            "accept", ""
        )
        if refusal.status == 401 and opens_page and "authorization" not in connection.headers:
            query = scope.get("query_string", b"").decode("latin-1")
            wanted = quote(str(scope["path"])) + (f"?{query}" if query else "")
            base = str(scope.get("root_path", "")) + self.prefix
            return RedirectResponse(f"{base}/medsegr/login?next={quote(wanted, safe='/')}", 303, headers)
        if refusal.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="medsegr"'
        if isinstance(refusal, Throttled):
            headers["Retry-After"] = str(refusal.wait_s)
        return JSONResponse({"detail": str(refusal)}, refusal.status, headers)


def visitor_of(connection: HTTPConnection) -> Visitor | None:
    """Who the guard let in; None on public pages and without a login."""
    found = connection.scope.get(VISITOR_KEY)
    return found if isinstance(found, Visitor) else None


def _needs_admin(path: str, method: str) -> bool:
    return any(
        (path == place or path.startswith(place + "/")) and (methods is None or method in methods)
        for place, methods in ADMIN
    )


def _without_secrets(scope: Scope) -> dict[str, Any]:
    """A copy of the scope whose headers hold neither a bearer token nor our cookie."""
    headers: list[tuple[bytes, bytes]] = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            continue
        if name == b"cookie":
            crumbs = [crumb.strip() for crumb in value.split(b";")]
            ours = (COOKIE.encode(), SECURE_COOKIE.encode())
            value = b"; ".join(crumb for crumb in crumbs if crumb.partition(b"=")[0].strip() not in ours)
            if not value:
                continue
        headers.append((name, value))
    return dict(scope) | {"headers": headers}


def _with_headers(send: Send) -> Send:
    """Adds the security headers that a reply lacks."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
