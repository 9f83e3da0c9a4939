"""`/proxy/dicom/{qido,wado,stow}/...`: a PACS through this server, with this server's credentials, so that a browser needs none.

Only DICOMweb resources are forwarded, GET to read and POST to store; nothing of a browser's own login reaches the PACS. Bodies
are streamed both ways on the event loop, so a slow PACS holds up nobody else. JSON answers are rewritten where they name URLs
of the PACS, which a browser cannot reach.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

import httpx
from fastapi import APIRouter, Depends, Request, Response
from fastapi.params import Depends as Guard
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from medsegr.web.dicomweb import MAX_UPLOAD
from medsegr.web.dicomweb_edge import NO_STORE, PREFIX, root_of, url_of
from medsegr.web.edge import SentenceRoute
from medsegr.web.errors import Refusal

logger = logging.getLogger(__name__)
SEGMENT = "[A-Za-z0-9_-][A-Za-z0-9._,~-]*"
READABLE = re.compile(f"(?:studies|series|instances|bulkdata)(?:/{SEGMENT})*")
STORABLE = re.compile("studies(?:/[0-9.]{1,64})?")
"""What may be asked for. No part of a path begins with a dot, so none leads out of the PACS' DICOMweb root."""
ASKED = ("accept", "accept-charset", "range", "if-none-match")
SENT = ("content-type", "content-length")
ANSWERED = ("content-type", "content-length", "content-encoding", "content-range", "etag", "warning")
ACTIVE = re.compile(r"html|xml|svg")
SANDBOXED = {"Content-Security-Policy": "sandbox; frame-ancestors 'self'"}
"""For what could be a page with scripts (a rendered report): it must not run as one of this server's own pages."""
JSON_TYPES = ("application/dicom+json", "application/json")
ADDRESS = re.compile(rb'(?<!\\)"(?:https?:|\\?/)(?:[^"\\]|\\.)*"')
"""A JSON string that is a URL, or a path of one."""
MAX_JSON = 1 << 29
TIMEOUT = httpx.Timeout(300.0, connect=10.0, pool=30.0)
LIMITS = httpx.Limits(max_connections=64, max_keepalive_connections=16)
AWAY = "The PACS cannot be reached; viewing goes on as soon as it answers again."


class Upstream(Protocol):
    """What the proxy has to know about a PACS."""

    @property
    def url(self) -> str:
        """Root of its DICOMweb services."""

    def path(self, service: str) -> str:
        """Where `qido`, `wado` or `stow` lies below the root, "" for the root itself."""

    def headers(self) -> Mapping[str, str]:
        """Headers that log this server in, fresh for each request."""


def proxy_router(
    pacs: Upstream,
    guards: Sequence[Guard] = (),
    max_upload: int = MAX_UPLOAD,
    timeout: httpx.Timeout = TIMEOUT,
) -> APIRouter:
    """The routes to one PACS. `guards` are dependencies of them all, `max_upload` the bytes of one STOW request."""
    router = APIRouter(
        prefix=f"{PREFIX}/{{root}}",
        route_class=SentenceRoute,
        include_in_schema=False,
        dependencies=[*guards, Depends(root_of)],
    )
    forward = _Forwarder(pacs, max_upload, timeout)

    @router.get("/{path:path}")
    async def read(request: Request, root: str, path: str) -> Response:
        if not READABLE.fullmatch(path):
            raise Refusal(
                404, f"There is no such DICOMweb resource; GET {PREFIX}/qido/studies lists the studies."
            )
        searches = root == "qido" and path.rpartition("/")[2] in {"studies", "series", "instances"}
        return await forward(request, "qido" if searches else "wado", path)

    @router.post("/{path:path}")
    async def store(request: Request, path: str) -> Response:
        if not STORABLE.fullmatch(path):
            raise Refusal(404, f"Instances are stored with POST {PREFIX}/stow/studies.")
        return await forward(request, "stow", path)

    return router


class _Forwarder:
    """Sends requests on and their answers back."""

    def __init__(self, pacs: Upstream, max_upload: int, timeout: httpx.Timeout) -> None:
        self.pacs, self.max_upload, self.timeout = pacs, max_upload, timeout
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, request: Request, service: str, path: str) -> Response:
        answer = await self._send(request, service, path)
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            _check(answer.status_code, kind)
        except Refusal:
            await answer.aclose()
            raise
        headers = {name: answer.headers[name] for name in ANSWERED if name in answer.headers} | NO_STORE
        if ACTIVE.search(kind):
            headers |= SANDBOXED
        if kind not in JSON_TYPES:
            return StreamingResponse(_pass_on(answer), answer.status_code, headers)
        body = await _whole(answer)
        body = await run_in_threadpool(rewritten, body, self.pacs, url_of(request))
        for name in ("content-length", "content-encoding"):
            headers.pop(name, None)
        return Response(body, answer.status_code, headers)

    async def _send(self, request: Request, service: str, path: str) -> httpx.Response:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=self.timeout, limits=LIMITS, follow_redirects=False)
        below = self.pacs.path(service).strip("/")
        url = httpx.URL("/".join(part for part in (self.pacs.url.rstrip("/"), below, path) if part))
        if request.url.query:
            url = url.copy_with(query=request.url.query.encode())
        known = (*ASKED, *SENT) if request.method == "POST" else ASKED
        headers = {name: request.headers[name] for name in known if name in request.headers}
        headers["accept-encoding"] = (
            "gzip" if "gzip" in request.headers.get("accept-encoding", "") else "identity"
        )
        try:
            login = await run_in_threadpool(self.pacs.headers)
            content = self._bounded(request) if request.method == "POST" else None
            sent = self._client.build_request(
                request.method, url, headers=headers | dict(login), content=content
            )
            return await self._client.send(sent, stream=True)
        except httpx.ConnectTimeout as error:
            raise Refusal(502, AWAY) from error
        except httpx.TimeoutException as error:
            raise Refusal(504, "The PACS took too long to answer; try again later.") from error
        except httpx.HTTPError as error:
            logger.warning("The PACS cannot be reached (%s).", type(error).__name__)
            raise Refusal(502, AWAY) from error

    async def _bounded(self, request: Request) -> AsyncIterator[bytes]:
        length = request.headers.get("content-length", "")
        received = int(length) if length.isdigit() and int(length) > self.max_upload else 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > self.max_upload:
                raise Refusal(
                    413, f"An upload may have {self.max_upload} bytes at most; send fewer instances."
                )
            yield chunk


def rewritten(body: bytes, pacs: Upstream, ours: str) -> bytes:
    """A JSON text in which URLs of the PACS' resources are URLs of this server; `ours` is where WADO-RS begins here."""

    def replace(match: re.Match[bytes]) -> bytes:
        try:
            address = str(json.loads(match.group()))
        except ValueError:
            return match.group()
        mapped = mapped_url(address, pacs, ours)
        return match.group() if mapped == address else json.dumps(mapped).encode()

    return ADDRESS.sub(replace, body)


def mapped_url(address: str, pacs: Upstream, ours: str) -> str:
    """The URL of this server for one of a PACS' resources; any other URL as it is.

    A PACS may know itself by another host name than we do, so the path alone decides for studies and what is below them.
    """
    there, root = urlsplit(address), urlsplit(pacs.url.rstrip("/"))
    for below in (pacs.path("wado").strip("/"), pacs.path("qido").strip("/"), ""):
        start = f"{root.path}/{below}/" if below else f"{root.path}/"
        rest = there.path.removeprefix(start)
        known = there.netloc.lower() == root.netloc.lower() or rest.startswith("studies/")
        if rest != there.path and known and READABLE.fullmatch(rest):
            return f"{ours}/{rest}" + (f"?{there.query}" if there.query else "")
    return address


def _check(status: int, kind: str) -> None:
    """Raises `Refusal` for an answer that would mislead a browser or its user."""
    if status in {401, 403}:
        raise Refusal(
            502, "The PACS refuses this server's login; its administrator has to renew the credentials."
        )
    if 300 <= status < 400 and status != 304:
        raise Refusal(502, "The PACS answers with a redirection; the server's URL of it has to be corrected.")
    if status >= 400 and kind != JSON_TYPES[0]:
        sentence = {404: "The PACS has no such study, series or instance."}.get(
            status, f"The PACS refused the request with status {status}."
        )
        raise Refusal(status if status < 500 else 502, sentence)


async def _whole(answer: httpx.Response) -> bytes:
    body = bytearray()
    try:
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > MAX_JSON:
                raise Refusal(
                    502, f"The PACS answers with more than {MAX_JSON} bytes; ask for less at a time."
                )
    except httpx.HTTPError as error:
        raise Refusal(502, "The PACS broke off in the middle of its answer; try again.") from error
    finally:
        await answer.aclose()
    return bytes(body)


async def _pass_on(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The answer's bytes as they come. A break in the middle breaks this answer too, so that nobody takes it for whole."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()
