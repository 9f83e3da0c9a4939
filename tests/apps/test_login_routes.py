"""No route is forgotten: all of them, whoever wrote them, are behind the guard."""

from __future__ import annotations

from pathlib import Path

import pytest
from every_route import application, every_route
from fastapi.testclient import TestClient

from medsegr.web.login.settings import decide
from medsegr.web.login.tokens import TokenFile

PUBLIC = {
    ("GET", "/medsegr/healthz"),
    ("GET", "/medsegr/readyz"),
    ("GET", "/medsegr/login"),
    ("POST", "/medsegr/login"),
    ("GET", "/medsegr/login/static/x"),
    ("GET", "/medsegr/login/oidc"),
    ("GET", "/medsegr/login/callback"),
    ("GET", "/auth/"),
    ("POST", "/auth/token"),
}


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens")


@pytest.fixture
def client(tokens: TokenFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    tokens.add("somebody")
    conf = {"login": str(tokens.path), "oidc_issuer": "http://127.0.0.1:9", "oidc_client_id": "x"}
    decision = decide(conf, "0.0.0.0", tmp_path / "state")
    return TestClient(
        application(decision, monkeypatch), raise_server_exceptions=False, follow_redirects=False
    )


def test_every_route_asks_for_a_login(client: TestClient) -> None:
    known = {(route.method, route.path) for route in every_route(client.app)}  # type: ignore[arg-type]
    places = {path for _, path in known}
    for path in ("/medsegr/ask", "/medsegr/corrections", "/infer/x", "/datastore/label", "/logs/", "/ohif/x",
                 "/reload", "/proxy/dicom/qido/x", "/static/anything.js", "/info/", "/openapi.json", "/docs", "/",
                 "/medsegr/me"):  # fmt: skip
        assert path in places, path
    assert len(known) > 60 and known > PUBLIC
    for method, path in sorted(known - PUBLIC):
        reply = client.request(method, path)
        assert reply.status_code == 401, (method, path)
        assert method == "HEAD" or set(reply.json()) == {"detail"}
    for method, path in sorted(PUBLIC):
        assert client.request(method, path).status_code != 401 or path == "/auth/token" or method == "POST"


def test_what_is_not_a_route_looks_the_same(client: TestClient) -> None:
    there = client.get("/info/")
    for path in (
        "/nothing",
        "/medsegr/turns/" + "0" * 32,
        "/datastore/image?image=x",
        "/proxy/dicom/wado/studies/1",
    ):
        missing = client.get(path)
        assert (missing.status_code, missing.text) == (401, there.text)
        for name in ("content-type", "www-authenticate"):
            assert missing.headers[name] == there.headers[name]


def test_what_monai_label_keeps_for_administrators_stays_theirs(
    client: TestClient, tokens: TokenFile
) -> None:
    head = {"Authorization": f"Bearer {tokens.add('anna')}"}
    for_admins = [route for route in every_route(client.app) if route.admin]  # type: ignore[arg-type]
    assert {route.path for route in for_admins} >= {"/logs/", "/model/x", "/datastore/label", "/train/x", "/medsegr/rounds",
                                                     "/medsegr/models/x/promote", "/medsegr/models/rollback"}  # fmt: skip
    for route in for_admins:
        assert client.request(route.method, route.path, headers=head).status_code == 403, route
    assert client.post("/reload", headers=head).status_code == 403
