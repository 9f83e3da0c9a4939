"""The guard around a small application: who gets in, how a browser logs in and out, and what another page cannot do."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from medsegr.web.login.guard import Guard
from medsegr.web.login.identity import current_user
from medsegr.web.login.issuer import Issuer, OidcSettings
from medsegr.web.login.login import Login
from medsegr.web.login.routes import login_router
from medsegr.web.login.sessions import Sessions
from medsegr.web.login.throttle import Throttle
from medsegr.web.login.tokens import TokenFile
from tests import oidc_issuer

ADMIN_PLACES = [
    ("GET", "/logs"), ("GET", "/logs/"), ("GET", "/logs/gpu"), ("POST", "/reload"), ("PUT", "/model/medsegr"),
    ("DELETE", "/model/medsegr"), ("DELETE", "/datastore/label"), ("DELETE", "/datastore/"), ("POST", "/train/"),
    ("POST", "/batch/infer/medsegr"),
]  # fmt: skip


class Hospital:
    """Tokens of two users, and a client for each way of asking."""

    def __init__(self, folder: Path, **more: Any) -> None:
        (folder / "files").mkdir()
        (folder / "files" / "x.txt").write_text("a file")
        self.file = TokenFile(folder / "tokens.jsonl")
        self.anna, self.boss = self.file.add("anna"), self.file.add("boss", admin=True)
        self.sessions = Sessions(folder / "sessions.jsonl")
        self.login = Login(self.sessions, self.file, **more)
        self.app = application(self.login, folder / "files")

    def client(self, token: str | None = None, base: str = "http://gpu:8000") -> TestClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return TestClient(self.app, base, headers=headers, follow_redirects=False)

    def browser(self, token: str, base: str = "http://gpu:8000") -> TestClient:
        client = self.client(base=base)
        reply = client.post("/medsegr/login", data={"token": token, "next": "/ohif/"})
        assert reply.status_code == 303, reply.text
        return client


def application(login: Login | None, files: Path, **more: Any) -> Any:
    app = FastAPI()
    app.add_middleware(
        CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
    )
    app.include_router(login_router(login))
    app.mount("/static", StaticFiles(directory=files))
    stock = APIRouter()

    @stock.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text(current_user(connection).name)
        await connection.close()

    @stock.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"a", b"b"]), media_type="text/event-stream")

    @stock.get("/framed")
    async def framed() -> JSONResponse:
        return JSONResponse({}, headers={"Content-Security-Policy": "default-src 'self'"})

    @stock.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "HEAD"])
    async def anything(request: Request, path: str) -> dict[str, Any]:
        return {"user": current_user(request).name, "headers": dict(request.headers), "path": path}

    app.include_router(stock)
    return Guard(app, login, **more)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


@pytest.mark.parametrize(
    "authorization", [None, "Bearer x", "Bearer", "Basic YTpi", "Bearer a.b.c", "bearer  "]
)
def test_without_a_good_token_everything_is_the_same_401(
    hospital: Hospital, authorization: str | None
) -> None:
    client = hospital.client()
    headers = {"Authorization": authorization} if authorization else {}
    bodies = set()
    for method, path in (("GET", "/info/"), ("GET", "/no/such/thing"), ("POST", "/medsegr/ask"), ("GET", "/static/x.txt"),
                         ("GET", "/"), ("DELETE", "/medsegr/turns/1"), ("OPTIONS", "/info/"), ("GET", "/medsegr/me"),
                         ("GET", "/medsegr/loginx"), ("GET", "//medsegr/login"), ("POST", "/medsegr/logout")):  # fmt: skip
        reply = client.request(method, path, headers=headers)
        assert reply.status_code in (401, 429), (method, path)
        if reply.status_code == 401:
            assert reply.headers["www-authenticate"].startswith("Bearer")
            bodies.add(reply.text)
    assert len(bodies) == 1 and json.loads(bodies.pop())["detail"].endswith(".")


def test_a_token_opens_everything_but_what_is_for_administrators(hospital: Hospital) -> None:
    anna, boss = hospital.client(hospital.anna), hospital.client(hospital.boss)
    assert anna.get("/info/").json()["user"] == "anna" and anna.get("/static/x.txt").text == "a file"
    assert anna.get("/medsegr/me").json() == {"user": "anna", "admin": False, "login": "tokens"}
    assert boss.get("/medsegr/me").json() == {"user": "boss", "admin": True, "login": "tokens"}
    assert anna.get("/stream").text == "ab"
    assert anna.get("/auth/token/valid").json()["username"] == "anna"
    for method, path in ADMIN_PLACES:
        assert anna.request(method, path).status_code == 403, path
        assert boss.request(method, path).status_code == 200, path
    for method, path in (
        ("GET", "/datastore/"),
        ("PUT", "/datastore/label"),
        ("GET", "/train/"),
        ("GET", "/logsx"),
    ):
        assert anna.request(method, path).status_code == 200, path


def test_no_secret_reaches_a_route(hospital: Hospital) -> None:
    seen = hospital.client(hospital.anna).get("/x", headers={"Cookie": "other=1"}).json()["headers"]
    assert "authorization" not in seen and seen["cookie"] == "other=1"
    browser = hospital.browser(hospital.anna)
    browser.cookies.set("theme", "dark")
    seen = browser.get("/proxy/dicom/qido/studies").json()["headers"]
    assert seen["cookie"] == "theme=dark"


def test_a_token_that_expires_or_is_removed_is_refused_at_once(tmp_path: Path) -> None:
    day = [date(2026, 1, 1)]
    hospital = Hospital(tmp_path)
    hospital.file._clock = lambda: day[0]
    carl = hospital.file.add("carl", days=1)
    script, browser = hospital.client(carl), hospital.browser(carl)
    assert script.get("/x").status_code == browser.get("/x").status_code == 200
    day[0] = date(2026, 1, 3)
    assert script.get("/x").status_code == browser.get("/x").status_code == 401
    day[0] = date(2026, 1, 2)
    assert browser.get("/x").status_code == 200
    TokenFile(hospital.file.path).remove("carl")
    assert script.get("/x").status_code == browser.get("/x").status_code == 401
    again = TokenFile(hospital.file.path).add("carl")
    assert browser.get("/x").status_code == 401 and hospital.client(again).get("/x").status_code == 200


def test_a_login_file_that_cannot_be_used_lets_nobody_in(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    browser = hospital.browser(hospital.anna)
    hospital.file.path.chmod(0o644)
    for client in (browser, hospital.client(hospital.anna)):
        reply = client.get("/x")
        assert reply.status_code == 503 and "tokens.jsonl" not in reply.text
    page = hospital.client().post("/medsegr/login", data={"token": hospital.anna})
    assert page.status_code == 503 and "login file" in page.text
    assert "expected 0600" in caplog.text and hospital.anna not in caplog.text


def test_a_page_leads_to_the_login_and_back(hospital: Hospital) -> None:
    client = hospital.client()
    reply = client.get("/ohif/viewer?StudyInstanceUIDs=1.2.3&x=a%20b", headers={"Accept": "text/html,*/*"})
    assert reply.status_code == 303 and reply.headers["cache-control"] == "no-store"
    there = urlsplit(reply.headers["location"])
    assert (there.scheme, there.netloc, there.path) == ("", "", "/medsegr/login")
    wanted = parse_qs(there.query)["next"][0]
    assert wanted == "/ohif/viewer?StudyInstanceUIDs=1.2.3&x=a%20b"
    page = client.get(reply.headers["location"])
    assert page.status_code == 200 and 'value="/ohif/viewer?StudyInstanceUIDs=1.2.3&amp;x=a%20b"' in page.text
    for name in ("login.css", "login.js"):
        assert f'"/medsegr/login/static/{name}"' in page.text
        assert client.get(f"/medsegr/login/static/{name}").status_code == 200
    assert client.get("/medsegr/login/static/guard.py").status_code == 404
    assert "http://" not in page.text and "https://" not in page.text
    done = client.post("/medsegr/login", data={"token": hospital.anna, "next": wanted})
    assert done.status_code == 303 and done.headers["location"] == wanted
    cookie = done.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"))
    assert "Secure" not in cookie and hospital.anna not in cookie
    assert client.get("/medsegr/me").json()["user"] == "anna"
    assert client.get("/ohif/", headers={"Accept": "text/html"}).status_code == 200


def test_over_https_the_cookie_belongs_to_this_host_alone(hospital: Hospital) -> None:
    browser = hospital.client(base="https://gpu")
    cookie = browser.post("/medsegr/login", data={"token": hospital.anna}).headers["set-cookie"]
    assert cookie.startswith("__Host-medsegr=") and "Secure" in cookie and "Path=/" in cookie
    assert browser.get("/x").status_code == 200


@pytest.mark.parametrize(
    "next_",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "/medsegr/login?next=/x",
        "/medsegr/logout",
    ],
)
def test_no_login_leads_elsewhere_or_in_circles(hospital: Hospital, next_: str) -> None:
    client = hospital.client()
    assert "evil" not in client.get("/medsegr/login", params={"next": next_}).text
    reply = client.post("/medsegr/login", data={"token": hospital.anna, "next": next_})
    assert reply.headers["location"] == "/ohif/"


def test_what_is_shown_on_the_page_is_escaped(hospital: Hospital) -> None:
    page = hospital.client().get("/medsegr/login", params={"next": '/"><script>alert(1)</script>'}).text
    assert "<script>alert" not in page
    policy = hospital.client().get("/medsegr/login").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"token=", "application/x-www-form-urlencoded", 401),
        (b"", "application/x-www-form-urlencoded", 401),
        (b"token=wrong", "application/x-www-form-urlencoded", 401),
        (b'{"token": "x"}', "application/json", 415),
        (b"token=" + b"x" * 10000, "application/x-www-form-urlencoded", 413),
        (b"token=\xff\xfe", "application/x-www-form-urlencoded", 422),
        (b"&".join(b"a=1" for _ in range(50)), "application/x-www-form-urlencoded", 422),
    ],
)
def test_bad_logins(hospital: Hospital, content: bytes, kind: str, status: int) -> None:
    client = hospital.client()
    reply = client.post("/medsegr/login", content=content, headers={"Content-Type": kind})
    assert reply.status_code == status and "set-cookie" not in reply.headers
    if status == 401:
        assert 'role="alert"' in reply.text and client.get("/x").status_code == 401


def test_logging_out_ends_the_session_for_good(hospital: Hospital) -> None:
    browser, other = hospital.browser(hospital.anna), hospital.browser(hospital.anna)
    secret = browser.cookies["medsegr"]
    assert "anna" in browser.get("/medsegr/logout").text
    assert (
        browser.post("/medsegr/logout", headers={"Accept": "text/html"}).headers["location"]
        == "/medsegr/login"
    )
    assert browser.get("/x").status_code == 401 and other.get("/x").status_code == 200
    browser.cookies.set("medsegr", secret)
    assert browser.get("/x").status_code == 401
    assert hospital.client(hospital.anna).post("/medsegr/logout").json() == {"status": "logged out"}


def test_a_new_login_ends_the_old_session(hospital: Hospital) -> None:
    browser = hospital.browser(hospital.anna)
    first = browser.cookies["medsegr"]
    browser.post("/medsegr/login", data={"token": hospital.boss})
    assert browser.get("/medsegr/me").json()["user"] == "boss"
    assert hospital.sessions.find(first) is None


def test_made_up_cookies_are_no_login(hospital: Hospital) -> None:
    for secret in ("x", "", hospital.anna, "None", "é"):
        reply = hospital.client().get("/x", headers={"Cookie": f"medsegr={secret}".encode()})
        assert reply.status_code == 401


EVIL = {"Origin": "http://evil.example"}
OTHER_PORT = {"Origin": "http://gpu:9000", "Sec-Fetch-Site": "same-site"}


@pytest.mark.parametrize("headers", [EVIL, OTHER_PORT, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}])
def test_another_page_cannot_use_the_cookie(hospital: Hospital, headers: dict[str, str]) -> None:
    browser = hospital.browser(hospital.anna)
    for method in ("POST", "PUT", "DELETE", "GET"):
        reply = browser.request(method, "/medsegr/ask", headers=headers)
        assert reply.status_code == 403 and "user" not in reply.json()
        assert "access-control-allow-origin" not in reply.headers
    assert browser.post("/medsegr/logout", headers=headers).status_code == 403
    assert browser.get("/x").status_code == 200
    own = {"Origin": "http://gpu:8000", "Sec-Fetch-Site": "same-origin"}
    assert browser.post("/medsegr/ask", headers=own).status_code == 200


@pytest.mark.parametrize("headers", [EVIL, OTHER_PORT, {"Sec-Fetch-Site": "cross-site"}])
def test_another_page_cannot_log_its_visitor_in(hospital: Hospital, headers: dict[str, str]) -> None:
    client = hospital.client()
    for path, form in (
        ("/medsegr/login", {"token": hospital.anna}),
        ("/auth/token", {"password": hospital.anna}),
    ):
        reply = client.post(path, data=form, headers=headers)
        assert reply.status_code == 403 and "set-cookie" not in reply.headers


def test_preflights_are_answered_to_trusted_pages_only(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, trusted=frozenset({"https://viewer.example"}))
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    client = hospital.client()
    assert client.options("/medsegr/ask", headers={**EVIL, **asks}).status_code == 401
    reply = client.options("/medsegr/ask", headers={"Origin": "https://viewer.example", **asks})
    assert (
        reply.status_code == 200 and reply.headers["access-control-allow-origin"] == "https://viewer.example"
    )
    assert client.options("/medsegr/ask", headers={"Origin": "https://viewer.example"}).status_code == 401


def test_websockets_need_a_login_too(hospital: Hospital) -> None:
    with hospital.client(hospital.anna).websocket_connect("ws://gpu:8000/socket") as socket:
        assert socket.receive_text() == "anna"
    browser = hospital.browser(hospital.anna)
    with browser.websocket_connect("ws://gpu:8000/socket", headers={"Origin": "http://gpu:8000"}) as socket:
        assert socket.receive_text() == "anna"
    for client, headers in ((hospital.client(), {}), (hospital.client("x"), {}), (browser, EVIL)):
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("ws://gpu:8000/socket", headers=headers),
        ):
            pass


def test_many_failures_from_one_address_are_not_looked_at(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, throttle=Throttle(3, 60))
    browser = hospital.browser(hospital.anna)
    client = hospital.client()
    assert [client.get("/x").status_code for _ in range(9)] == [401] * 9  # no attempt, no failure
    statuses = [hospital.client("x").get("/x").status_code for _ in range(4)]
    assert statuses == [401, 401, 401, 429]
    reply = client.post("/medsegr/login", data={"token": "guess"})
    assert reply.status_code == 429 and 0 < int(reply.headers["retry-after"]) <= 61
    assert browser.get("/x").status_code == 200  # who is logged in stays so
    assert hospital.client(hospital.anna).get("/x").status_code == 200  # and who knows a token gets in


def test_every_reply_has_the_security_headers(hospital: Hospital) -> None:
    for client in (hospital.client(), hospital.client(hospital.anna)):
        for path in ("/x", "/static/x.txt", "/medsegr/login"):
            headers = client.get(path).headers
            assert (
                headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
            )
            assert "frame-ancestors" in headers["content-security-policy"]
    assert (
        hospital.client(hospital.anna).get("/framed").headers["content-security-policy"]
        == "default-src 'self'"
    )


def test_the_stock_client_logs_in_with_the_token_as_password(hospital: Hospital) -> None:
    client = hospital.client()
    assert client.get("/auth/").json()["enabled"] is True
    given = client.post(
        "/auth/token", data={"username": "x", "password": hospital.anna, "grant_type": "password"}
    )
    assert given.json() == {"access_token": hospital.anna, "token_type": "bearer"}
    wrong = client.post(
        "/auth/token", data={"username": "anna", "password": "wrong", "grant_type": "password"}
    )
    assert wrong.status_code == 401


def test_without_a_login_only_this_machine_is_answered(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    app = application(None, tmp_path / "files", only_local=True)
    for base in ("http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000"):
        assert TestClient(app, base).get("/medsegr/me").json() == {
            "user": "anonymous",
            "admin": True,
            "login": "off",
        }
    for base in ("http://rebound.evil.example:8000", "http://gpu:8000", "http://127.0.0.1.evil.example"):
        reply = TestClient(app, base).get("/medsegr/me")
        assert reply.status_code == 403 and "--conf login off" in reply.json()["detail"]
    anywhere = application(None, tmp_path / "files")
    assert TestClient(anywhere, "http://gpu:8000").get("/info").json()["user"] == "anonymous"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"}, 200),
        ({"sec-fetch-site": "same-site"}, 200),
        ({"origin": "https://viewer.example", "sec-fetch-site": "cross-site"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
    ],
)
def test_without_a_login_pages_elsewhere_see_and_change_nothing(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    """MONAI Label lets the pages of every origin read its answers."""
    (tmp_path / "files").mkdir()
    app = application(None, tmp_path / "files", only_local=True, trusted={"https://viewer.example"})
    reply = TestClient(app, "http://127.0.0.1:8000").get("/info", headers=headers)
    assert reply.status_code == status
    if status == 403:
        assert "access-control-allow-origin" not in reply.headers
        assert TestClient(app, "http://127.0.0.1:8000").delete("/x", headers=headers).status_code == 403
    off = TestClient(application(None, tmp_path / "files"), "http://127.0.0.1:8000")
    assert off.get("/info", headers=headers).status_code == 200  # switched off in so many words


def test_behind_a_prefix_and_a_root_path(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    app = FastAPI()
    app.include_router(login_router(hospital.login, "/api"), prefix="/api")

    @app.get("/api/logs/")
    def logs() -> str:
        return "log"

    client = TestClient(
        Guard(app, hospital.login, prefix="/api"), "http://gpu", root_path="/lab", follow_redirects=False
    )
    to = client.get("/lab/api/x?y=1", headers={"Accept": "text/html"}).headers["location"]
    assert to == "/lab/api/medsegr/login?next=/lab/api/x%3Fy%3D1"
    assert 'action="/lab/api/medsegr/login"' in client.get(to).text
    head = {"Authorization": f"Bearer {hospital.anna}"}
    assert client.get("/lab/api/logs/", headers=head).status_code == 403
    assert client.get("/lab/api/medsegr/me", headers=head).json()["user"] == "anna"
    assert client.get("/medsegr/login/../../api/logs/").status_code in (401, 404)


@pytest.fixture
def issuer() -> Iterator[oidc_issuer.Issuer]:
    with oidc_issuer.running() as made:
        yield made


def with_issuer(folder: Path, issuer: oidc_issuer.Issuer, **more: Any) -> Hospital:
    settings = OidcSettings(issuer.url, oidc_issuer.CLIENT, oidc_issuer.SECRET, admin_role="medsegr-admin")
    return Hospital(folder, issuer=Issuer(settings), **more)


def through_the_issuer(client: TestClient, next_: str = "/ohif/") -> Any:
    """As a browser goes: to the issuer, and back with a code; the last reply."""
    left = client.get("/medsegr/login/oidc", params={"next": next_})
    assert left.status_code == 303
    back = httpx.get(left.headers["location"]).headers["location"]
    return client.get(back)


def test_browser_login_at_the_issuer(
    tmp_path: Path, issuer: oidc_issuer.Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hospital = with_issuer(tmp_path, issuer)
    client = hospital.client()
    assert 'href="/medsegr/login/oidc?next=/ohif/"' in client.get("/medsegr/login").text
    done = through_the_issuer(client, "/ohif/viewer?x=1")
    assert done.status_code == 200 and 'content="0;url=/ohif/viewer?x=1"' in done.text
    assert client.get("/medsegr/me").json() == {"user": "otto", "admin": False, "login": "oidc"}
    assert [name for name in client.cookies if name.startswith("medsegr-login")] == []
    assert client.get("/logs").status_code == 403
    issuer.roles.append("medsegr-admin")
    boss = hospital.client()
    through_the_issuer(boss)
    assert boss.get("/medsegr/me").json()["admin"] is True
    secrets = [client.cookies["medsegr"], boss.cookies["medsegr"], oidc_issuer.SECRET]
    assert not any(secret in caplog.text for secret in secrets) and "eyJ" not in caplog.text


def test_bearer_tokens_of_the_issuer(tmp_path: Path, issuer: oidc_issuer.Issuer) -> None:
    hospital = with_issuer(tmp_path, issuer)
    assert hospital.client(issuer.token()).get("/medsegr/me").json() == {
        "user": "otto",
        "admin": False,
        "login": "oidc",
    }
    assert hospital.client(hospital.anna).get("/medsegr/me").json()["user"] == "anna"
    assert hospital.client(issuer.token(aud="other")).get("/x").status_code == 401
    assert hospital.client(issuer.token(exp=1)).get("/x").status_code == 401
    page = hospital.client().post("/medsegr/login", data={"token": issuer.token()})
    assert page.status_code == 401 and "set-cookie" not in page.headers


def test_a_code_works_in_the_browser_that_asked_for_it_only(
    tmp_path: Path, issuer: oidc_issuer.Issuer
) -> None:
    hospital = with_issuer(tmp_path, issuer)
    mine, victim = hospital.client(), hospital.client()
    left = mine.get("/medsegr/login/oidc")
    cookie = left.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/medsegr/login" in cookie
    back = httpx.get(left.headers["location"]).headers["location"]
    for url in (back, "/medsegr/login/callback", "/medsegr/login/callback?state=x&code=y"):
        assert victim.get(url).status_code == 400
    victim.get("/medsegr/login/oidc")
    assert victim.get(back).status_code == 400 and victim.get("/x").status_code == 401
    assert mine.get(back.replace("code=", "code=x")).status_code == 403
    assert mine.get(back).status_code == 200
    assert mine.get(back).status_code == 400  # once


@pytest.mark.parametrize(
    "overrides",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another-client"},
        {"aud": [oidc_issuer.CLIENT, "another-client"], "azp": "another-client"},
        {"iss": "https://id.evil.example"},
        {"exp": 1},
        {"preferred_username": "anonymous"},
    ],
)
def test_id_tokens_that_are_not_for_this_login(
    tmp_path: Path, issuer: oidc_issuer.Issuer, overrides: dict[str, Any]
) -> None:
    client = with_issuer(tmp_path, issuer).client()
    issuer.overrides = overrides
    reply = through_the_issuer(client)
    assert reply.status_code == 403 and 'role="alert"' in reply.text and client.get("/x").status_code == 401


def test_with_the_issuer_away_tokens_and_sessions_still_work(
    tmp_path: Path, issuer: oidc_issuer.Issuer
) -> None:
    hospital = with_issuer(tmp_path, issuer)
    client = hospital.client()
    through_the_issuer(client)
    issuer.away = True
    (tmp_path / "b").mkdir()
    fresh = with_issuer(tmp_path / "b", issuer)
    assert client.get("/x").status_code == hospital.client(hospital.anna).get("/x").status_code == 200
    reply = fresh.client(issuer.token()).get("/x")
    assert reply.status_code == 503 and reply.json()["detail"].endswith(".")
    page = fresh.client().get("/medsegr/login/oidc")
    assert page.status_code == 503 and "cannot be reached" in page.text


def test_sessions_of_the_issuer_end_when_it_is_no_longer_used(
    tmp_path: Path, issuer: oidc_issuer.Issuer
) -> None:
    hospital = with_issuer(tmp_path, issuer)
    client = hospital.client()
    through_the_issuer(client)
    without = TestClient(
        application(Login(hospital.sessions, hospital.file), tmp_path / "files"), "http://gpu:8000"
    )
    without.cookies = client.cookies
    assert client.get("/x").status_code == 200 and without.get("/x").status_code == 401


def test_the_redirect_address_can_be_set(tmp_path: Path, issuer: oidc_issuer.Issuer) -> None:
    hospital = with_issuer(
        tmp_path, issuer, public_url="https://medsegr.example", trusted={"https://medsegr.example"}
    )
    client = hospital.client()
    left = client.get("/medsegr/login/oidc")
    query = parse_qs(urlsplit(left.headers["location"]).query)
    assert (
        query["redirect_uri"] == ["https://medsegr.example/medsegr/login/callback"]
        and "Secure" in left.headers["set-cookie"]
    )
    assert (
        client.post(
            "/medsegr/login", data={"token": "x"}, headers={"Origin": "https://medsegr.example"}
        ).status_code
        == 401
    )


def test_lifespan_messages_pass() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.append(scope["type"])

    asyncio.run(Guard(app, None, True)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert heard == ["lifespan"]
