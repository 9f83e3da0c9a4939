"""`/medsegr/login`, `/logout` and `/me`: the login page, the way to an OIDC issuer and back, and who one is.

The page needs no script; with one it notices a login that the browser did not show at first (a link from another site
opens without the cookie, which is `SameSite=Strict`).
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape

from medsegr.web.edge import SentenceRoute, read_body
from medsegr.web.errors import Refusal
from medsegr.web.login import code_flow
from medsegr.web.login.guard import visitor_of
from medsegr.web.login.identity import current_user
from medsegr.web.login.issuer import BadToken
from medsegr.web.login.login import (
    FOREIGN,
    How,
    Login,
    Throttled,
    Visitor,
    address_of,
    cookie_name,
    is_secure,
)
from medsegr.web.login.origins import from_our_pages, safe_next

logger = logging.getLogger(__name__)
WEB = Path(__file__).resolve().parents[1]
ASSETS = {path.name: path for path in (WEB / "static" / "login").glob("login.*")}
ASSET_TYPES = {".css": "text/css", ".js": "text/javascript"}
HOME = "/ohif/"
MAX_FORM = 8192
ATTEMPT_S = 600
STATE = re.compile(r"[A-Za-z0-9_-]{32}")
WRONG = "This token is not known here, or is no longer good."
NOT_LOGGED_IN = "The login service did not log you in; try again, or ask whoever runs this server."
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}

Next = Annotated[str, Query(max_length=10000)]


def login_router(login: Login | None, prefix: str = "", home: str = HOME) -> APIRouter:
    """The router; `prefix` is the one that it is included with, `home` the page that a login leads to if none was asked for.

    Without a `login` everybody is `anonymous`.
    """
    router = APIRouter(tags=["Login"], route_class=SentenceRoute)
    _add_me(router)
    if login is None:
        return router
    pages = _Pages(login, prefix, home)
    _add_page(router, pages)
    _add_logout(router, pages)
    if login.tokens is not None:
        _add_token_login(router, pages)
        _add_stock_login(router, login)
    if login.issuer is not None:
        _add_issuer_login(router, pages)
    return router


class _Pages:
    """Renders the page and keeps cookies, for one server."""

    def __init__(self, login: Login, prefix: str, home: str) -> None:
        self.login, self._prefix, self._home = login, prefix, home
        loader = FileSystemLoader(WEB / "pages")
        self._template = Environment(loader=loader, autoescape=select_autoescape()).get_template("login.html")

    def base(self, request: Request) -> str:
        """What stands before `/medsegr` in the browser's path."""
        return str(request.scope.get("root_path", "")) + self._prefix

    def next(self, request: Request, wanted: str | None) -> str:
        """Where a login leads to: `wanted` if it is a page of ours and not the login itself."""
        base = self.base(request)
        home = base + self._home
        path = safe_next(wanted, home)
        return home if path.startswith((f"{base}/medsegr/login", f"{base}/medsegr/logout")) else path

    def page(self, request: Request, status: int = 200, **more: Any) -> Response:
        """The page: with `message` what went wrong, with `user` who is logged in, with `done` on the way to `next`."""
        values = {"next": self.next(request, None), **more}
        html = self._template.render(
            base=self.base(request),
            tokens=self.login.tokens is not None,
            oidc=self.login.issuer is not None,
            **values,
        )
        return HTMLResponse(html, status, HEADERS)

    def refused(self, request: Request, refusal: Refusal, next_: str) -> Response:
        """The page for a login that failed."""
        message = WRONG if refusal.status == 401 else str(refusal)
        reply = self.page(request, refusal.status, next=next_, message=message)
        if isinstance(refusal, Throttled):
            reply.headers["Retry-After"] = str(refusal.wait_s)
        return reply

    async def welcome(
        self, request: Request, reply: Response, visitor: Visitor, token: str | None = None
    ) -> Response:
        """Begin a session and let `reply` carry its cookie."""
        old = request.cookies.get(cookie_name(request))
        if old:
            await self.login.close_session(old)
        secret = await self.login.open_session(visitor, token)
        logger.info("%s logged in.", visitor.user.name)
        reply.set_cookie(
            cookie_name(request),
            secret,
            max_age=self.login.sessions.lifetime_s,
            httponly=True,
            secure=is_secure(request, self.login.public_url),
            samesite="strict",
        )
        return reply

    def callback(self, request: Request) -> str:
        """The address that the issuer sends the browser back to."""
        known = self.login.public_url or f"{request.url.scheme}://{request.headers.get('host', '')}"
        return f"{known}{self.base(request)}/medsegr/login/callback"

    def attempt_cookie(self, request: Request, state: str) -> tuple[str, dict[str, Any]]:
        """Name and options of the cookie of one login at the issuer; `Lax`, as the issuer is another site."""
        options = {
            "path": f"{self.base(request)}/medsegr/login",
            "httponly": True,
            "secure": is_secure(request, self.login.public_url),
            "samesite": "lax",
        }
        return f"medsegr-login-{state[:12]}", options


def _add_me(router: APIRouter) -> None:
    @router.get("/medsegr/me", summary="Who is logged in, and how")
    async def me(request: Request) -> JSONResponse:
        user, visitor = current_user(request), visitor_of(request)
        how = visitor.how if visitor else How.OFF
        return JSONResponse(
            {"user": user.name, "admin": user.admin, "login": how.value},
            headers={"Cache-Control": "no-store"},
        )


def _add_page(router: APIRouter, pages: _Pages) -> None:
    @router.get("/medsegr/login", include_in_schema=False)
    async def page(request: Request, next: Next = "") -> Response:
        return pages.page(request, next=pages.next(request, next))

    @router.get("/medsegr/login/static/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in ASSETS:
            raise Refusal(404, "The login page has no such file.")
        path = ASSETS[name]
        headers = {"Cache-Control": "no-cache"}
        return FileResponse(path, media_type=ASSET_TYPES[path.suffix], headers=headers)


def _add_token_login(router: APIRouter, pages: _Pages) -> None:
    @router.post("/medsegr/login", include_in_schema=False)
    async def log_in(request: Request) -> Response:
        if not from_our_pages(
            request, pages.login.trusted
        ):  # else a page could log its visitor in as somebody else
            raise Refusal(403, FOREIGN)
        form = await _form(request)
        token, next_ = form.get("token", "").strip(), pages.next(request, form.get("next"))
        try:
            visitor = await pages.login.by_token(token, address_of(request))
            if (
                visitor.how is not How.TOKENS
            ):  # a short-lived token of the issuer must not become a long session
                raise Refusal(401, WRONG)
            return await pages.welcome(request, RedirectResponse(next_, 303, HEADERS), visitor, token)
        except Refusal as refusal:
            return pages.refused(request, refusal, next_)


def _add_logout(router: APIRouter, pages: _Pages) -> None:
    @router.get("/medsegr/logout", include_in_schema=False)
    async def page(request: Request) -> Response:
        return pages.page(request, user=current_user(request).name)

    @router.post("/medsegr/logout", summary="End this browser's session")
    async def log_out(request: Request) -> Response:
        visitor = visitor_of(request)
        if visitor is not None and visitor.session is not None:
            await pages.login.close_session(visitor.session)
        reply: Response = JSONResponse({"status": "logged out"})
        if "text/html" in request.headers.get("accept", ""):
            reply = RedirectResponse(f"{pages.base(request)}/medsegr/login", 303)
        reply.headers["Clear-Site-Data"] = '"cache"'
        secure = is_secure(request, pages.login.public_url)
        reply.delete_cookie(cookie_name(request), secure=secure, httponly=True, samesite="strict")
        return reply


def _add_issuer_login(router: APIRouter, pages: _Pages) -> None:
    issuer = pages.login.issuer
    assert issuer is not None

    @router.get("/medsegr/login/oidc", include_in_schema=False)
    async def leave(request: Request, next: Next = "") -> Response:
        attempt = code_flow.begin(pages.next(request, next))
        try:
            there = await code_flow.address(issuer, attempt, pages.callback(request))
        except Refusal as refusal:
            return pages.refused(request, refusal, attempt.next)
        reply = RedirectResponse(there, 303, HEADERS)
        name, options = pages.attempt_cookie(request, attempt.state)
        reply.set_cookie(name, attempt.pack(), max_age=ATTEMPT_S, **options)
        return reply

    @router.get("/medsegr/login/callback", include_in_schema=False)
    async def come_back(request: Request, state: str = "", code: str = "") -> Response:
        next_ = pages.next(request, None)
        try:
            if not STATE.fullmatch(state):
                raise Refusal(400, code_flow.STALE)
            name, options = pages.attempt_cookie(request, state)
            attempt = code_flow.Attempt.unpack(request.cookies.get(name, ""))
            next_ = pages.next(request, attempt.next)
            if not code:
                raise Refusal(403, NOT_LOGGED_IN)
            user = await code_flow.finish(issuer, attempt, state, code, pages.callback(request))
            # A page and not a redirect: the cookie is not sent along a chain of redirects that another site began.
            reply = await pages.welcome(
                request, pages.page(request, next=next_, done=True), Visitor(user, How.OIDC)
            )
        except BadToken as error:
            logger.warning("A login with the issuer failed: %s.", error)
            return pages.refused(request, Refusal(403, NOT_LOGGED_IN), next_)
        except Refusal as refusal:
            return pages.refused(request, refusal, next_)
        reply.delete_cookie(name, **options)
        return reply


def _add_stock_login(router: APIRouter, login: Login) -> None:
    """MONAI Label's own login routes, for its client in 3D Slicer: any user name, the token as the password."""

    @router.get("/auth/", include_in_schema=False)
    async def enabled() -> dict[str, Any]:
        return {"enabled": True, "client_id": "", "realm": ""}

    @router.post("/auth/token", include_in_schema=False)
    async def token(request: Request) -> dict[str, str]:
        if not from_our_pages(request, login.trusted):
            raise Refusal(403, FOREIGN)
        password = (await _form(request)).get("password", "").strip()
        await login.by_token(password, address_of(request))
        return {"access_token": password, "token_type": "bearer"}

    @router.get("/auth/token/valid", include_in_schema=False)
    async def valid(request: Request) -> dict[str, Any]:
        return {"username": current_user(request).name, "roles": []}


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form; raises `Refusal` 413, 415 or 422."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(415, "A login is a form (application/x-www-form-urlencoded).")
    body = await read_body(request, MAX_FORM)
    try:
        fields = parse_qs(body.decode(), max_num_fields=20, keep_blank_values=True)
    except ValueError:
        raise Refusal(422, "The login's form cannot be read.") from None
    return {name: values[-1] for name, values in fields.items()}
