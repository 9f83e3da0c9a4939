"""For tests of the login: a real OIDC issuer on a port of its own, that can change its keys and go away."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

CLIENT, SECRET = "medsegr-test", "a secret: with / and +"


@dataclass
class Issuer:
    """Keys, users and what was asked. `overrides` go into every token that the code flow gives out."""

    url: str = ""
    user: str = "otto"
    roles: list[str] = field(default_factory=list)
    keys: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    key_fetches: int = 0
    away: bool = False
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def new_key(self, name: str, *, curve: bool = False) -> None:
        """Take a key into use; the last one signs."""
        kinds = ec.generate_private_key(ec.SECP256R1()) if curve else rsa.generate_private_key(65537, 2048)
        self.keys[name] = kinds

    def jwks(self) -> dict[str, Any]:
        found = []
        for name, key in self.keys.items():
            kind = (
                jwt.algorithms.ECAlgorithm
                if isinstance(key, ec.EllipticCurvePrivateKey)
                else jwt.algorithms.RSAAlgorithm
            )
            found.append({**json.loads(kind.to_jwk(key.public_key())), "kid": name, "use": "sig"})
        return {"keys": found}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a good token; a change to None takes a claim away."""
        now = int(time.time())
        values = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": f"id-of-{self.user}",
            "iat": now,
            "exp": now + 300,
            "preferred_username": self.user,
            **changes,
        }
        return {name: value for name, value in values.items() if value is not None}

    def token(self, key: str | None = None, algorithm: str | None = None, **changes: Any) -> str:
        """A signed token."""
        name = key or list(self.keys)[-1]
        private = self.keys[name]
        algorithm = algorithm or ("ES256" if isinstance(private, ec.EllipticCurvePrivateKey) else "RS256")
        return jwt.encode(self.claims(**changes), private, algorithm, headers={"kid": name})


def application(issuer: Issuer) -> FastAPI:
    """Discovery, keys, authorization (the user is always willing) and tokens."""
    app = FastAPI()

    @app.middleware("http")
    async def gone(request: Request, call_next: Any) -> Response:
        return Response(status_code=502) if issuer.away else await call_next(request)

    @app.get("/.well-known/openid-configuration")
    async def discovery() -> dict[str, Any]:
        return {
            "issuer": issuer.url,
            "authorization_endpoint": f"{issuer.url}/authorize",
            "token_endpoint": f"{issuer.url}/token",
            "jwks_uri": f"{issuer.url}/keys",
        }

    @app.get("/keys")
    async def keys() -> dict[str, Any]:
        issuer.key_fetches += 1
        return issuer.jwks()

    @app.get("/authorize")
    async def authorize(request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["response_type"] == "code" and asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        issuer.codes[code] = asked
        answer = urlencode({"code": code, "state": asked["state"]})
        return RedirectResponse(f"{asked['redirect_uri']}?{answer}", 302)

    @app.post("/token")
    async def token(request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        login = f"{CLIENT}:{urlencode({'': SECRET})[1:]}".replace("+", "%20")
        expected = "Basic " + base64.b64encode(login.encode()).decode()
        asked = issuer.codes.pop(form.get("code", ""), None)
        if request.headers.get("authorization") != expected or asked is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        id_token = issuer.token(**({"nonce": asked["nonce"]} | issuer.overrides))
        access = issuer.token(aud="account", azp=CLIENT, realm_access={"roles": issuer.roles})
        return JSONResponse({"id_token": id_token, "access_token": access, "token_type": "Bearer"})

    return app


@contextmanager
def running() -> Iterator[Issuer]:
    """A running issuer with one RSA key."""
    issuer = Issuer()
    issuer.new_key("first")
    listening = socket.create_server(("127.0.0.1", 0))
    issuer.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(application(issuer), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
