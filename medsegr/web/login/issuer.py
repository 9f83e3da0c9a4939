"""Tokens of an OIDC issuer: fetched keys, pinned algorithms, and the user behind a token.

Discovery and keys (JWKS) are fetched when they are first needed and kept. A token whose key is unknown makes us look again,
but not more often than every `COOLDOWN_S`: anybody can send made-up tokens.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from medsegr.errors import MedSegRError
from medsegr.web.errors import Refusal
from medsegr.web.login.identity import ANONYMOUS, User
from medsegr.web.login.origins import is_loopback

logger = logging.getLogger(__name__)
ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
"""What a key of each type may sign with. No `none`, and nothing symmetric: with HS256 the public key itself would be the
secret."""
LEEWAY_S = 30
KEYS_LAST_S, COOLDOWN_S, RETRY_S, TIMEOUT_S = 3600.0, 30.0, 5.0, 5.0
MAX_TOKEN, MAX_NAME = 16384, 200
AWAY = (
    "The login service cannot be reached or answers wrongly, so nobody can log in now; try again in a minute."
)


class BadToken(MedSegRError):
    """A token is not accepted; the message is for the log and never holds the token."""


@dataclass(frozen=True)
class OidcSettings:
    """How to log in with an issuer; `secret` is None for a public client (PKCE protects both kinds)."""

    issuer: str
    client_id: str
    secret: str | None = field(default=None, repr=False)
    user_claim: str = "preferred_username"
    admin_role: str | None = None

    def __post_init__(self) -> None:
        _check_url(self.issuer, "The issuer")


@dataclass(frozen=True)
class Claims:
    """What a checked token says."""

    values: dict[str, Any]

    def user_name(self, claim: str) -> str:
        """The user's name; raises `BadToken`."""
        name = self.values.get(claim)
        if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            raise BadToken(f"the claim {claim} is not a printable name of at most {MAX_NAME} characters")
        if name.strip().casefold() == ANONYMOUS.name:
            raise BadToken(f"nobody may be called {ANONYMOUS.name}")
        return name.strip()

    def has_role(self, role: str, client_id: str) -> bool:
        """Whether the user has a role where Keycloak, Entra ID and others write it."""
        access = self.values.get("resource_access")
        places = [
            self.values,
            self.values.get("realm_access"),
            access.get(client_id) if isinstance(access, dict) else None,
        ]
        lists = [place.get(key) for place in places if isinstance(place, dict) for key in ("roles", "groups")]
        return any(isinstance(found, list) and role in found for found in lists)

    def made_for(self, client_id: str) -> bool:
        """Whether the audience is this client."""
        audience = self.values.get("aud")
        return audience == client_id or (isinstance(audience, list) and client_id in audience)


class Issuer:
    """Checks tokens of one issuer. `transport` replaces the network in tests; `clock` gives seconds."""

    def __init__(
        self,
        settings: OidcSettings,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self._clock, self._transport = settings, clock, transport
        self._discovery: dict[str, Any] | None = None
        self._keys: dict[str | None, dict[str, Any]] = {}
        self._fetched, self._failed = float("-inf"), float("-inf")
        self._busy: asyncio.Lock | None = None

    async def user(self, token: str) -> User:
        """The user of a bearer token; raises `BadToken`, or `Refusal` 503 while the issuer is away."""
        claims = await self.check(token)
        if not claims.made_for(self.settings.client_id):
            raise BadToken("the token is for another audience")
        return self.user_of(claims)

    def user_of(self, claims: Claims) -> User:
        """The user that checked claims name; raises `BadToken`."""
        role = self.settings.admin_role
        admin = role is not None and claims.has_role(role, self.settings.client_id)
        return User(claims.user_name(self.settings.user_claim), admin)

    async def check(self, token: str) -> Claims:
        """The claims of a token that this issuer signed and that is valid now. Its audience is the caller's to check.

        Raises `BadToken`, or `Refusal` 503 while the issuer is away.
        """
        try:
            if len(token) > MAX_TOKEN:
                raise BadToken("the token is too long")
            header = jwt.get_unverified_header(token)
            algorithm, key_id = header.get("alg"), header.get("kid")
            if not any(algorithm in family for family in ALGORITHMS.values()):
                raise BadToken("the token's algorithm is not accepted")
            key = await self._key(key_id if isinstance(key_id, str) else None, str(algorithm))
            values = jwt.decode(
                token,
                key,
                algorithms=[str(algorithm)],
                issuer=self.settings.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"], "verify_aud": False},
            )
        except jwt.PyJWTError as error:
            raise BadToken(f"the token is not valid ({type(error).__name__})") from error
        return Claims(values)

    async def endpoint(self, name: str) -> str:
        """An address out of discovery, such as "token_endpoint"; raises `Refusal` 503."""
        if self._discovery is None or self._clock() - self._fetched > KEYS_LAST_S:
            await self._fetch()
        url = (self._discovery or {}).get(name)
        if not isinstance(url, str):
            raise Refusal(503, AWAY)
        return url

    async def post_form(self, url: str, form: dict[str, str], auth: tuple[str, str] | None) -> dict[str, Any]:
        """POST a form and read JSON; raises `Refusal` 503 if nobody answers, `BadToken` for a refusal."""
        try:
            async with self._client() as client:
                reply = (
                    await client.post(url, data=form, auth=auth)
                    if auth
                    else await client.post(url, data=form)
                )
                if reply.status_code >= 500:
                    raise Refusal(503, AWAY)
                if reply.status_code != 200:
                    raise BadToken(f"the issuer refused the code with status {reply.status_code}")
                return _object(reply)
        except (httpx.HTTPError, ValueError) as error:
            if isinstance(error, MedSegRError):
                raise
            logger.warning("The issuer did not answer a login (%s).", type(error).__name__)
            raise Refusal(503, AWAY) from None

    async def speaks(self, method: str) -> bool:
        """Whether clients may prove themselves by `method` at the token endpoint; raises `Refusal` 503."""
        await self.endpoint("token_endpoint")
        methods = (self._discovery or {}).get(
            "token_endpoint_auth_methods_supported", ["client_secret_basic"]
        )
        return isinstance(methods, list) and method in methods

    async def _key(self, key_id: str | None, algorithm: str) -> jwt.PyJWK:
        if self._clock() - self._fetched > KEYS_LAST_S:
            await self._fetch()
        if self._found(key_id) is None and self._clock() - self._fetched > COOLDOWN_S:
            await self._fetch()
        data = self._found(key_id)
        if data is None:
            raise BadToken("the token's key is unknown")
        if (
            algorithm not in ALGORITHMS.get(str(data.get("kty")), ())
            or data.get("alg", algorithm) != algorithm
        ):
            raise BadToken("the token's algorithm is not its key's")
        return jwt.PyJWK(data, algorithm)

    def _found(self, key_id: str | None) -> dict[str, Any] | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        """Read discovery and keys; raises `Refusal` 503. One at a time; after a failure not again for `RETRY_S`."""
        self._busy = self._busy or asyncio.Lock()
        began = self._clock()
        async with self._busy:
            if self._fetched >= began:
                return
            if self._clock() - self._failed < RETRY_S:
                raise Refusal(503, AWAY)
            try:
                async with self._client() as client:
                    base = self.settings.issuer.rstrip("/")
                    discovery = _object(await client.get(f"{base}/.well-known/openid-configuration"))
                    if discovery.get("issuer") != self.settings.issuer:
                        raise ValueError("it calls itself by another name")
                    for name in ("jwks_uri", "authorization_endpoint", "token_endpoint"):
                        _check_url(str(discovery.get(name)), f"`{name}`")
                    keys = _object(await client.get(discovery["jwks_uri"])).get("keys")
                    self._keys = _signing_keys(keys)
            except (httpx.HTTPError, ValueError) as error:
                self._failed = self._clock()
                logger.warning("The issuer's settings or keys could not be read (%s).", type(error).__name__)
                raise Refusal(503, AWAY) from None
            self._discovery, self._fetched = discovery, self._clock()

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=TIMEOUT_S, transport=self._transport, follow_redirects=False)


def _signing_keys(keys: Any) -> dict[str | None, dict[str, Any]]:
    """Key id -> public signature key; everything else of the set is left out."""
    if not isinstance(keys, list):
        raise ValueError("the key set has no keys")
    usable = [
        key
        for key in keys
        if isinstance(key, dict) and key.get("kty") in ALGORITHMS and key.get("use", "sig") == "sig"
    ]
    return {key.get("kid"): key for key in usable}


def _object(reply: httpx.Response) -> dict[str, Any]:
    reply.raise_for_status()
    data = reply.json()
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


def _check_url(url: str, what: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname and is_loopback(parts.hostname):
        return
    raise MedSegRError(f"{what} must be an https:// address (http:// only on this machine).")
