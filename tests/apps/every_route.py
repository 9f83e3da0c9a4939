"""Every route that a server of this app has, ours and MONAI Label's own, with what MONAI Label thinks of who may use it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from live_server import ROOT
from starlette.routing import BaseRoute, Mount

from medsegr.dicom.pacs import Pacs
from medsegr.web.login.settings import Decision

EXAMPLES = {"n": "1", "k": "1", "root": "qido"}


@dataclass(frozen=True)
class Known:
    """A method and a path with its gaps filled; `admin` if MONAI Label wants an administrator."""

    method: str
    path: str
    admin: bool


def application(decision: Decision, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """A copy of MONAI Label's application with this app's routes and guard, and nothing behind them."""
    monkeypatch.syspath_prepend(str(ROOT / "apps" / "medsegr"))
    from monailabel.app import app as stock

    routes = importlib.import_module("lib.routes")
    copy = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    copy.router.routes[:] = list(stock.router.routes)
    copy.user_middleware = list(stock.user_middleware)
    nothing: Any = SimpleNamespace(
        find=None,
        resolve=None,
        targets=(),
        store=SimpleNamespace(database=None),
        worker=None,
        series=None,
        get_unlabeled_images=None,
        get_image_info=None,
    )
    archive = Pacs("http://127.0.0.1:9/dicom-web")
    routes.install(
        copy,
        nothing,
        nothing,
        {"medsegr": False},
        nothing,
        decision=decision,
        archive=archive,
        loop=nothing,
        chooser=nothing,
    )
    return copy


def every_route(app: FastAPI) -> list[Known]:
    """All of them, routers inside routers as well."""
    return list(dict.fromkeys(_known(app.router.routes)))


def _known(routes: list[BaseRoute]) -> Iterator[Known]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _known(inner.routes)
        elif isinstance(route, Mount):
            yield Known("GET", f"{route.path}/anything.js", admin=False)
        else:
            path = re.sub(r"{(\w+)(:\w+)?}", lambda gap: EXAMPLES.get(gap[1], "x"), str(route.path))  # noqa: B009
            for method in sorted(getattr(route, "methods", None) or ["GET"]):
                yield Known(method, path, _for_admins(route))


def _for_admins(route: BaseRoute) -> bool:
    dependant = getattr(route, "dependant", None)
    calls = [found.call for found in dependant.dependencies] if dependant else []
    return any(str(getattr(call, "roles", "")).endswith("-admin") for call in calls)
