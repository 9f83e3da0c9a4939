"""The MONAI Label app serves the page for the file that its `--conf review` names."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from medsegr.qa.review.queue import ReviewQueue
from tests.review_files import write_review_file


@pytest.mark.parametrize("named", [True, False])
def test_the_app_serves_the_page_where_a_file_is_named(
    named: bool, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "apps" / "medsegr"))
    routes = importlib.import_module("lib.routes")
    queue = ReviewQueue(write_review_file(tmp_path / "set")) if named else None
    app = FastAPI()

    @app.get("/{everything:path}")
    def stock(everything: str) -> str:
        return "stock"

    services = SimpleNamespace(
        find=None, resolve=None, worker=None, store=SimpleNamespace(database=None), targets=()
    )
    routes.install(app, services, services, {"medsegr": False}, services, queue)
    with TestClient(app) as client:
        assert client.get("/info").json() == "stock"
        page, state = client.get("/medsegr/review"), client.get("/medsegr/review/state")
        body = {"id": "liver", "reviewer": "Ada", "verdict": "accept"}
        verdict = client.post("/medsegr/review/verdicts", json=body)
    if queue:
        assert page.status_code == 200 and "<title>MedSeg-QA review</title>" in page.text
        assert state.json()["file"] == "qa.jsonl"
        assert verdict.status_code == 200 and queue.log.entries()[0].reviewer == "Ada"
    else:
        assert {page.status_code, state.status_code, verdict.status_code} == {404}
        assert page.json()["detail"].startswith("No file is under review on this server")
