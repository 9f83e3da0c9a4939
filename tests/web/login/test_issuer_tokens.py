"""Tokens of a real issuer: what is accepted, and every way of forging or misusing one that is known."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from medsegr.web.errors import Refusal
from medsegr.web.login.identity import User
from medsegr.web.login.issuer import COOLDOWN_S, RETRY_S, BadToken, Issuer, OidcSettings
from tests import oidc_issuer
from tests.oidc_issuer import CLIENT


@pytest.fixture
def issuer() -> Iterator[oidc_issuer.Issuer]:
    with oidc_issuer.running() as made:
        yield made


def checker(issuer: oidc_issuer.Issuer, clock: Any = time.monotonic, **more: Any) -> Issuer:
    return Issuer(OidcSettings(issuer.url, CLIENT, **more), clock=clock)


def user(checks: Issuer, token: str) -> User:
    return asyncio.run(checks.user(token))


def refused(checks: Issuer, token: str) -> str:
    with pytest.raises(BadToken) as caught:
        user(checks, token)
    assert token not in str(caught.value)
    return str(caught.value)


def part(values: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def test_good_tokens(issuer: oidc_issuer.Issuer) -> None:
    checks = checker(issuer, admin_role="medsegr-admin")
    assert user(checks, issuer.token()) == User("otto")
    assert user(checks, issuer.token(aud=["account", CLIENT])) == User("otto")
    assert user(checks, issuer.token(algorithm="PS256")) == User("otto")
    for place in (
        {"realm_access": {"roles": ["medsegr-admin"]}},
        {"resource_access": {CLIENT: {"roles": ["medsegr-admin"]}}},
        {"roles": ["a", "medsegr-admin"]},
        {"groups": ["medsegr-admin"]},
    ):
        assert user(checks, issuer.token(**place)) == User("otto", admin=True)
    for place in (
        {"realm_access": {"roles": ["other"]}},
        {"resource_access": {"another-client": {"roles": ["medsegr-admin"]}}},
        {"roles": "medsegr-admin"},
        {"realm_access": "medsegr-admin"},
    ):
        assert user(checks, issuer.token(**place)) == User("otto")
    assert user(checker(issuer), issuer.token(roles=["medsegr-admin", "None", ""])) == User("otto")
    assert user(checker(issuer, user_claim="sub"), issuer.token()) == User("id-of-otto")
    issuer.new_key("curve", curve=True)
    assert user(checker(issuer), issuer.token()) == User("otto")


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 3600},
        {"exp": None},
        {"nbf": int(time.time()) + 3600},
        {"iat": int(time.time()) + 3600},
        {"aud": "another-client"},
        {"aud": ["account"]},
        {"aud": None},
        {"iss": "https://id.evil.example"},
        {"iss": None},
        {"preferred_username": None},
        {"preferred_username": ""},
        {"preferred_username": 7},
        {"preferred_username": "anonymous"},
        {"preferred_username": "a\nb"},
        {"preferred_username": "x" * 300},
    ],
)
def test_tokens_that_are_signed_but_not_good(issuer: oidc_issuer.Issuer, changes: dict[str, Any]) -> None:
    refused(checker(issuer), issuer.token(**changes))


def test_forged_tokens(issuer: oidc_issuer.Issuer) -> None:
    checks, claims = checker(issuer), issuer.claims()
    public = issuer.keys["first"].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert "algorithm" in refused(checks, jwt.encode(claims, None, "none", headers={"kid": "first"}))
    for spelling in ("none", "None", "NONE", "", None):
        refused(checks, f"{part({'alg': spelling, 'kid': 'first'})}.{part(claims)}.")

    signed = f"{part({'alg': 'HS256', 'kid': 'first', 'typ': 'JWT'})}.{part(claims)}"
    for secret in (pem, pem.strip(), json.dumps(issuer.jwks()["keys"][0]).encode()):
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        assert "algorithm" in refused(
            checks, f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
        )

    stranger = oidc_issuer.Issuer(issuer.url)
    stranger.new_key("first")
    assert "Signature" in refused(checks, stranger.token())
    head, body, signature = issuer.token().split(".")
    refused(checks, f"{head}.{part(claims | {'preferred_username': 'boss'})}.{signature}")
    refused(checks, f"{head}.{body}.")
    own_key = {
        "alg": "RS256",
        "kid": "other",
        "jwk": stranger.jwks()["keys"][0],
        "jku": "https://evil.example/keys",
    }
    refused(checks, jwt.encode(claims, stranger.keys["first"], "RS256", headers=own_key))
    for garbage in ("..", "a.b.c", "x" * 20000, f"{part({})}.{part({})}.x", "é.é.é"):
        refused(checks, garbage)


def test_a_key_signs_with_its_own_algorithm_only(issuer: oidc_issuer.Issuer) -> None:
    issuer.new_key("curve", curve=True)
    checks = checker(issuer)
    token = jwt.encode(issuer.claims(), issuer.keys["first"], "RS256", headers={"kid": "curve"})
    assert "algorithm" in refused(checks, token)
    jwks = issuer.jwks
    issuer.jwks = lambda: {"keys": [{**jwks()["keys"][0], "alg": "RS512"}]}  # type: ignore[method-assign]
    assert "algorithm" in refused(checker(issuer), issuer.token("first"))
    assert user(checker(issuer), issuer.token("first", "RS512")) == User("otto")
    issuer.jwks = lambda: {"keys": [{**jwks()["keys"][0], "use": "enc"}]}  # type: ignore[method-assign]
    assert "unknown" in refused(checker(issuer), issuer.token("first"))
    secret = base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("=")
    issuer.jwks = lambda: {"keys": [{"kty": "oct", "kid": "s", "k": secret}]}  # type: ignore[method-assign]
    refused(checker(issuer), jwt.encode(issuer.claims(), b"k" * 32, "HS256", headers={"kid": "s"}))


def test_keys_are_renewed_when_an_unknown_one_appears_but_not_at_an_attackers_pace(
    issuer: oidc_issuer.Issuer,
) -> None:
    now = [1000.0]
    checks = checker(issuer, lambda: now[0])
    old = issuer.token()
    for _ in range(3):
        assert user(checks, old) == User("otto")
    assert issuer.key_fetches == 1
    del issuer.keys["first"]
    issuer.new_key("second")
    assert "unknown" in refused(checks, issuer.token())  # fetched a moment ago
    now[0] += COOLDOWN_S + 1
    assert user(checks, issuer.token()) == User("otto") and issuer.key_fetches == 2
    assert "unknown" in refused(checks, old)
    stranger = oidc_issuer.Issuer(issuer.url)
    for n in range(20):
        stranger.new_key(f"made-up-{n}", curve=True)
        refused(checks, stranger.token())
        now[0] += 1
    assert issuer.key_fetches == 2
    now[0] += 7200
    assert user(checks, issuer.token()) == User("otto") and issuer.key_fetches == 3


def test_an_issuer_that_is_away_is_a_503_and_comes_back(issuer: oidc_issuer.Issuer) -> None:
    now = [1000.0]
    checks = checker(issuer, lambda: now[0])
    issuer.away = True
    for _ in range(2):
        with pytest.raises(Refusal) as caught:
            user(checks, issuer.token())
        assert caught.value.status == 503
    issuer.away = False
    now[0] += RETRY_S + 1
    assert user(checks, issuer.token()) == User("otto")
    issuer.away = True
    assert user(checks, issuer.token()) == User("otto")  # its keys are known
    nobody = Issuer(OidcSettings("http://127.0.0.1:9", CLIENT))
    with pytest.raises(Refusal) as caught:
        user(nobody, issuer.token())
    assert caught.value.status == 503


def test_an_issuer_that_calls_itself_by_another_name_is_not_believed(issuer: oidc_issuer.Issuer) -> None:
    checks = Issuer(OidcSettings(issuer.url + "/", CLIENT))
    with pytest.raises(Refusal) as caught:
        user(checks, issuer.token())
    assert caught.value.status == 503


def test_many_at_once_fetch_the_keys_once(issuer: oidc_issuer.Issuer) -> None:
    async def all_of_them() -> list[User]:
        checks, token = checker(issuer), issuer.token()
        return await asyncio.gather(*(checks.user(token) for _ in range(10)))

    assert asyncio.run(all_of_them()) == [User("otto")] * 10 and issuer.key_fetches == 1
