"""MONAI Label's routes that we take over: nobody waits for somebody else's archive, and a name is no path."""

from __future__ import annotations

import asyncio
import importlib
import time
from typing import Any

import httpx
import pytest
import requests
from fastapi import FastAPI
from live_server import ROOT, Server

from medsegr.web.errors import Refusal


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "apps" / "medsegr"))
    return importlib.import_module("lib.stock_routes")


def test_a_slow_archive_holds_up_nobody_else(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "app_info", lambda: time.sleep(1.0) or {"name": "slow"})
    app = FastAPI()
    app.include_router(module.stock_router([], []))

    @app.get("/alive")
    async def alive() -> str:
        return "yes"

    async def both() -> list[str]:
        done: list[str] = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:

            async def get(path: str, after: float) -> None:
                await asyncio.sleep(after)
                assert (await client.get(path)).status_code == 200
                done.append(path)

            await asyncio.gather(get("/info/", 0), get("/alive", 0.1))
        return done

    assert asyncio.run(both()) == ["/alive", "/info/"]


@pytest.mark.parametrize("name", ["../app/main", "/etc/x", "a\\b", ".hidden", "a\0b", "x" * 201])
def test_the_name_of_a_new_image_is_no_path(module: Any, name: str) -> None:
    with pytest.raises(Refusal, match="no slash"):
        module.check_name(name)
    module.check_name("Case 7 (left).v2")


def test_an_upload_stays_among_the_studies(server: Server) -> None:
    for path in ("/datastore/image", "/datastore/"):
        reply = requests.put(
            f"{server.url}{path}?image=../app/planted", files={"file": ("x.py", b"x = 1")}, timeout=30
        )
        assert reply.status_code == 422 and "no slash" in reply.json()["detail"]
    assert not list(server.folder.rglob("planted*"))


def test_stock_routes_answer_as_before(server: Server) -> None:
    assert server.get("/info/").json()["name"].startswith("MedSeg-R")
    assert server.get("/datastore/?output=stats").json()["total"] >= 5
    assert server.get("/datastore/image?image=pic").content.startswith(b"\x89PNG")
    assert server.get("/datastore/image?image=nothing").status_code in (400, 404)
