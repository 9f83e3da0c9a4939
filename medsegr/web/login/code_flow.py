"""Login with a browser at an OIDC issuer: authorization code flow with PKCE, state and nonce (OpenID Connect Core 3.1,
RFC 7636).

What must be remembered while the user is at the issuer stays in a cookie of that browser, one for each attempt: nothing
to fill up on the server, and several tabs do not disturb each other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from medsegr.web.errors import Refusal
from medsegr.web.login.identity import User
from medsegr.web.login.issuer import BadToken, Issuer

STALE = "This login was not begun in this browser, or too long ago; begin again."


@dataclass(frozen=True)
class Attempt:
    """One login that is under way. `next` is where it leads, checked before it is used."""

    state: str
    nonce: str
    verifier: str
    next: str

    def pack(self) -> str:
        """As the value of a cookie."""
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode().rstrip("=")

    @classmethod
    def unpack(cls, cookie: str) -> Attempt:
        """The inverse of `pack`; raises `Refusal` 400."""
        try:
            values: Any = json.loads(base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4)))
            attempt = cls(**values)
        except (ValueError, TypeError):
            raise Refusal(400, STALE) from None
        if not all(isinstance(value, str) for value in asdict(attempt).values()):
            raise Refusal(400, STALE)
        return attempt


def begin(next_: str) -> Attempt:
    """A fresh attempt."""
    return Attempt(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), next_)


async def address(issuer: Issuer, attempt: Attempt, redirect_uri: str) -> str:
    """Where to send the browser; raises `Refusal` 503."""
    endpoint = await issuer.endpoint("authorization_endpoint")
    challenge = (
        base64.urlsafe_b64encode(hashlib.sha256(attempt.verifier.encode()).digest()).decode().rstrip("=")
    )
    query = urlencode(
        {
            "response_type": "code",
            "client_id": issuer.settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid profile",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
    )
    return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}"


async def finish(issuer: Issuer, attempt: Attempt, state: str, code: str, redirect_uri: str) -> User:
    """The user who came back with a code; raises `Refusal` 400 or 503, or `BadToken`."""
    if not hmac.compare_digest(state.encode(), attempt.state.encode()):
        raise Refusal(400, STALE)
    settings = issuer.settings
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "client_id": settings.client_id,
        "code_verifier": attempt.verifier,
    }
    auth = None
    if settings.secret is not None:
        if await issuer.speaks("client_secret_basic"):
            auth = (quote(settings.client_id, ""), quote(settings.secret, ""))  # RFC 6749, 2.3.1
        else:
            form["client_secret"] = settings.secret
    reply = await issuer.post_form(await issuer.endpoint("token_endpoint"), form, auth)
    id_token = reply.get("id_token")
    if not isinstance(id_token, str):
        raise BadToken("the issuer gave no ID token")
    claims = await issuer.check(id_token)
    party = claims.values.get("azp", settings.client_id)
    if not claims.made_for(settings.client_id) or party != settings.client_id:
        raise BadToken("the ID token is for another client")
    nonce = claims.values.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), attempt.nonce.encode()):
        raise BadToken("the ID token belongs to another login")
    user = issuer.user_of(claims)
    return user if user.admin else User(user.name, await _admin_by(issuer, reply.get("access_token")))


async def _admin_by(issuer: Issuer, access_token: Any) -> bool:
    """Whether the access token that came along names the admin role: Keycloak writes roles there and not into ID tokens."""
    role, client_id = issuer.settings.admin_role, issuer.settings.client_id
    if role is None or not isinstance(access_token, str) or access_token.count(".") != 2:
        return False
    try:
        claims = await issuer.check(access_token)
    except BadToken:
        return False
    ours = claims.made_for(client_id) or claims.values.get("azp") == client_id
    return ours and claims.has_role(role, client_id)
