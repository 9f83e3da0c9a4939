"""OHIF: its files, its configuration and our plugin's files, from this server alone.

`/medsegr/ohif/...` are the plugin's ES modules, `/ohif/...` the OHIF of the monailabel wheel, whose nested files the stock
route cannot find. An OHIF built for the root (npm's `@ohif/app`) is served wherever no other route answers. Nothing outside
the three folders is ever read, and no page of ours asks another server for anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fastapi import APIRouter, Request, Response
from fastapi.params import Depends
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from medsegr.errors import MedSegRError
from medsegr.web.edge import SentenceRoute
from medsegr.web.errors import Refusal

HERE = Path(__file__).resolve().parent
PLUGIN_PATH = "/medsegr/ohif"
BUNDLED_PATH = "/ohif"
INDEX, CONFIG = "index.html", "app-config.js"
TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
OUTSIDE = re.compile(r"<link\b[^>]*\bhref=\"https?://[^\"]*\"[^>]*>", re.IGNORECASE)
IMPORTED = re.compile(r"@import\s+url\([\"']?https?://[^)]*\)[^;]*;", re.IGNORECASE)
ADDED = f"""
// MedSeg-R: the panel, and a mode for every study with images.
window.config.extensions.push('{PLUGIN_PATH}/extension.js');
window.config.modes.push('{PLUGIN_PATH}/mode.js');
"""


class ViewerError(MedSegRError):
    """A folder that should hold a viewer does not."""


def plugin_folder() -> Path:
    """Where the plugin's files are: in the package, or beside it in a checkout that has no symbolic links."""
    candidates = (HERE / "static" / "ohif", HERE.parents[1] / "plugins" / "ohif")
    for folder in candidates:
        if (folder / "extension.js").is_file():
            return folder.resolve()
    raise ViewerError(f"The files of the OHIF plugin are not in {candidates[0]}; install medsegr again.")


def viewer_router(bundled: Path, root: Path | None = None, guards: Sequence[Depends] = ()) -> APIRouter:
    """`/ohif/...` from the folder `bundled`, `/medsegr/ohif/...`, and the page of `root`, if there is one, at `/`.

    `guards` are dependencies of every route.
    """
    router = APIRouter(route_class=SentenceRoute, include_in_schema=False, dependencies=list(guards))
    _add_plugin(router, _Folder(plugin_folder()))
    _add_bundled(router, _Folder(bundled))
    if root is not None:
        _add_start(router, _Folder(root))
    return router


def _add_plugin(router: APIRouter, files: _Folder) -> None:
    @router.api_route(f"{PLUGIN_PATH}/{{path:path}}", methods=["GET", "HEAD"])
    async def plugin(path: str, request: Request) -> Response:
        return await files.get(path, request.scope)


def _add_bundled(router: APIRouter, files: _Folder) -> None:
    @router.api_route(f"{BUNDLED_PATH}/{{path:path}}", methods=["GET", "HEAD"])
    async def bundled(path: str, request: Request) -> Response:
        if path == CONFIG:
            return _script(files.text(CONFIG) + ADDED)
        page = _accepts_html(request.scope) or not PurePosixPath(path).suffix
        if path in ("", INDEX) or (page and not files.has(path)):
            return files.page()
        return await files.get(path, request.scope)


def _add_start(router: APIRouter, files: _Folder) -> None:
    @router.api_route("/", methods=["GET", "HEAD"])
    async def start() -> Response:
        return files.page()


class RootViewer:
    """What a router does with requests that no route answers: the files of an OHIF built for the root.

    GETs that accept HTML get OHIF's page, which has routes of its own; everything else goes on to `otherwise`.
    """

    def __init__(self, folder: Path, otherwise: ASGIApp) -> None:
        """Raises `ViewerError` where `folder` holds no OHIF."""
        if not (folder / INDEX).is_file():
            raise ViewerError(f"{folder} has no {INDEX}; `--conf ohif` takes the folder `dist` of @ohif/app.")
        self._files, self._plugin, self._otherwise = _Folder(folder), _Folder(plugin_folder()), otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        reply = await self._reply(scope) if scope["type"] == "http" else None
        await (reply or self._otherwise)(scope, receive, send)

    async def _reply(self, scope: Scope) -> Response | None:
        path = str(scope["path"]).lstrip("/")
        if scope["method"] not in ("GET", "HEAD"):
            return None
        if path == CONFIG:
            return _script(self._plugin.text(CONFIG))
        if path != INDEX and self._files.has(path):
            return await self._files.get(path, scope)
        return self._files.page() if path == INDEX or _accepts_html(scope) else None


class _Folder:
    """Files of one folder, with types that do not depend on the machine and checked for changes on every use.

    Pages and styles are given without the fonts of other servers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._files = StaticFiles(directory=self._folder)

    def has(self, path: str) -> bool:
        """Whether there is such a file; never for a path that leads out of the folder."""
        try:
            full, _found = self._files.lookup_path(path.strip("/"))
        except (OSError, ValueError):  # too long, or no path at all
            return False
        return bool(full) and Path(full).is_file()

    async def get(self, path: str, scope: Scope) -> Response:
        """The file, or that it has not changed; raises `Refusal` 404."""
        if path.endswith(".css") and self.has(path):
            return Response(IMPORTED.sub("", self.text(path)), media_type="text/css", headers=HEADERS)
        try:
            reply = await self._files.get_response(path.strip("/"), scope)
        except (HTTPException, OSError, ValueError):
            raise Refusal(404, "There is no such file of the viewer.") from None
        if reply.status_code == 200 and (kind := TYPES.get(PurePosixPath(path).suffix.lower())):
            reply.headers["Content-Type"] = kind
        reply.headers.update(HEADERS)
        return reply

    def text(self, name: str) -> str:
        return (self._folder / name.strip("/")).read_text(encoding="utf-8")

    def page(self) -> Response:
        """The start page."""
        return Response(OUTSIDE.sub("", self.text(INDEX)), media_type="text/html", headers=HEADERS)


def _accepts_html(scope: Scope) -> bool:
    """Whether a browser asks for a page, and not for a file or for data."""
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


def _script(text: str) -> Response:
    return Response(text, media_type="text/javascript", headers=HEADERS)
