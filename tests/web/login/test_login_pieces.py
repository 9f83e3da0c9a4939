"""Small rules: where a login may lead, whose cookie counts, how often one may fail, and which login a server has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from medsegr.web.login.origins import cookie_counts, from_our_pages, is_loopback, safe_next
from medsegr.web.login.settings import LoginOptionError, decide
from medsegr.web.login.throttle import Throttle
from medsegr.web.login.tokens import TokenFile


@pytest.mark.parametrize(
    "path", ["/", "/ohif/", "/ohif/viewer?StudyInstanceUIDs=1.2&x=%2F", "/medsegr/review#3", "/a@b:c"]
)
def test_a_login_leads_to_our_own_pages(path: str) -> None:
    assert safe_next(path, "/home") == path


@pytest.mark.parametrize(
    "path",
    [
        None, "", "ohif", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example",
        "http:evil.example", "/\t/evil.example", "/\n/evil.example", " //evil.example", "/a b", "javascript:alert(1)",
        "data:text/html,x", "/x\r\nSet-Cookie: a=b", "/" + "a" * 5000, "//[", "/\x7f",
    ],
)  # fmt: skip
def test_and_nowhere_else(path: str | None) -> None:
    assert safe_next(path, "/home") == "/home"


def connection(method: str = "POST", kind: str = "http", **headers: str) -> HTTPConnection:
    raw = [(b"host", b"gpu:8000")]
    raw += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": kind, "headers": raw, "path": "/", "query_string": b""}
    return HTTPConnection(scope | ({"method": method} if kind == "http" else {}))


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({}, True),
        ({"origin": "http://gpu:8000"}, True),
        ({"origin": "https://GPU:8000"}, True),
        ({"origin": "https://gpu:8000", "sec_fetch_site": "same-origin"}, True),
        ({"origin": "https://rewritten.example", "sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"origin": "http://gpu:9000"}, False),
        ({"origin": "http://gpu"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://gpu:8000.evil.example"}, False),
        ({"origin": "http://evil.example/gpu:8000"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://["}, False),
        ({"origin": "http://gpu:8000", "sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"origin": "https://viewer.example"}, False),
    ],
)
def test_requests_of_other_pages_are_known(headers: dict[str, str], ours: bool) -> None:
    assert from_our_pages(connection(**headers)) is ours
    assert cookie_counts(connection(**headers)) is ours
    assert cookie_counts(connection(kind="websocket", **headers)) is ours


def test_a_trusted_page_may_use_the_login_and_a_link_may_open_a_page() -> None:
    trusted = {"https://viewer.example"}
    assert from_our_pages(connection(origin="https://viewer.example", sec_fetch_site="cross-site"), trusted)
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert cookie_counts(connection("GET", **link))
    assert not cookie_counts(connection("POST", **link))
    assert not cookie_counts(connection("GET", **(link | {"sec_fetch_dest": "iframe"})))
    assert not cookie_counts(connection("GET", sec_fetch_site="cross-site", sec_fetch_mode="no-cors"))
    assert not cookie_counts(connection("GET", origin="http://evil.example"))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.0.1", True), ("localhost", True), ("LOCALHOST", True), ("::1", True), ("[::1]", True),
        ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.5", False), ("gpu", False), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
    ],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_failures_are_counted_per_address_and_forgotten() -> None:
    now = [0.0]
    throttle = Throttle(3, 60, lambda: now[0])
    for _ in range(3):
        assert throttle.wait_s("10.0.0.1") == 0
        throttle.failed("10.0.0.1")
        now[0] += 1
    assert throttle.wait_s("10.0.0.1") == 58 and throttle.wait_s("10.0.0.2") == 0
    assert throttle.wait_s("::ffff:10.0.0.1") == 58
    now[0] = 60.5
    assert throttle.wait_s("10.0.0.1") == 0
    for n in range(3):
        throttle.failed(f"2001:db8::{n}")
    assert throttle.wait_s("2001:db8::ffff") > 0 and throttle.wait_s("2001:db8:0:1::1") == 0
    for n in range(5000):
        throttle.failed(f"host{n}")
    assert len(throttle._times) <= 4096


def test_no_login_on_this_machine_and_an_owners_token_elsewhere(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert decide({}, host, tmp_path) == decide({"login": ""}, host, tmp_path)
        decision = decide({}, host, tmp_path)
        assert decision.login is None and decision.only_local and not list(tmp_path.iterdir())
    for host in ("0.0.0.0", "::", "10.0.0.5", None):
        decision = decide({}, host, tmp_path)
        assert decision.login and decision.login.tokens and decision.owner and not decision.only_local
        assert decision.login.tokens.find(decision.owner.read_text().strip())


def test_off_has_to_be_said(tmp_path: Path) -> None:
    for word in ("off", "OFF", " off "):
        decision = decide({"login": word}, "0.0.0.0", tmp_path)
        assert decision.login is None and not decision.only_local
    with pytest.raises(LoginOptionError, match="contradict"):
        decide(
            {"login": "off", "oidc_issuer": "https://id.example", "oidc_client_id": "x"}, "0.0.0.0", tmp_path
        )


def test_a_file_of_tokens_counts_on_this_machine_too(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens")
    token = file.add("anna")
    decision = decide({"login": str(file.path)}, "127.0.0.1", tmp_path / "state")
    assert (
        decision.login and decision.login.tokens and decision.login.tokens.find(token) and not decision.owner
    )
    for bad in (str(tmp_path / "missing"), str(tmp_path)):
        with pytest.raises(ValueError, match=r"does not exist|cannot be read|mode"):
            decide({"login": bad}, "127.0.0.1", tmp_path)


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        ({"oidc_issuer": "https://id.example"}, "oidc_client_id"),
        ({"oidc_client_id": "x"}, "oidc_issuer"),
        ({"oidc_admin_role": "x"}, "oidc_issuer"),
        ({"oidc_issuer": "http://id.example", "oidc_client_id": "x"}, "https"),
        ({"oidc_issuer": "id.example", "oidc_client_id": "x"}, "https"),
        ({"public_url": "medsegr.example"}, "public_url"),
        ({"public_url": "https://medsegr.example/path"}, "public_url"),
    ],
)
def test_options_that_do_not_fit_together(tmp_path: Path, conf: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        decide(conf, "0.0.0.0", tmp_path)


def test_an_issuer_needs_no_owners_token(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    conf = {
        "oidc_issuer": "https://id.example",
        "oidc_client_id": "x",
        "oidc_client_secret_file": str(secret),
    }
    secret.chmod(0o644)
    with pytest.raises(ValueError, match="0600"):
        decide(conf, "0.0.0.0", tmp_path / "state")
    secret.chmod(0o600)
    decision = decide(conf, "0.0.0.0", tmp_path / "state")
    assert decision.login and decision.login.issuer and not decision.login.tokens and not decision.owner
    assert decision.login.issuer.settings.secret == "s3cret" and "s3cret" not in repr(
        decision.login.issuer.settings
    )
