"""Which login a server has: as its options say, else none on this machine alone and an owner's token everywhere else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from medsegr.errors import MedSegRError
from medsegr.web.login.issuer import Issuer, OidcSettings
from medsegr.web.login.login import Login
from medsegr.web.login.origins import is_loopback
from medsegr.web.login.owner import owner_tokens
from medsegr.web.login.private_file import read_private
from medsegr.web.login.sessions import Sessions
from medsegr.web.login.tokens import TokenFile

OFF = "off"
FOLDER, SESSIONS = "login", "sessions.jsonl"
OIDC_OPTIONS = ("oidc_client_id", "oidc_client_secret_file", "oidc_user_claim", "oidc_admin_role")


class LoginOptionError(MedSegRError):
    """The options of the login contradict each other or are incomplete."""


@dataclass(frozen=True)
class Decision:
    """The login of a server; None is none. `only_local`: it is off because only this machine reaches the server, and
    pages of `trusted` origins. `owner` is the file with the owner's token if nobody set up anything else.
    """

    login: Login | None
    only_local: bool = False
    owner: Path | None = None
    trusted: Collection[str] = ()


def decide(conf: Mapping[str, str], host: str | None, state: Path, trusted: Collection[str] = ()) -> Decision:
    """The login for the options `conf` of a server that listens on `host` (None: nobody knows, so on every address).

    Makes files only for the owner's token, under `state`. `trusted` are origins of pages elsewhere that may use a session.
    Raises `LoginOptionError` or `LoginFileError`.
    """
    wanted, issuer = conf.get("login", "").strip(), _issuer(conf)
    if wanted.lower() == OFF:
        if issuer:
            raise LoginOptionError("`login off` and `oidc_issuer` contradict each other; give one of them.")
        return Decision(None)
    if not wanted and issuer is None and host is not None and is_loopback(host):
        return Decision(None, only_local=True, trusted=_origins(trusted))
    folder = state / FOLDER
    tokens, owner = None, None
    if wanted:
        tokens = TokenFile(Path(wanted).expanduser().resolve())
        tokens.entries()
    elif issuer is None:
        tokens, owner = owner_tokens(folder)
    url = _public_url(conf.get("public_url", "").strip().rstrip("/"))
    origins = _origins((*trusted, *([url] if url else [])))
    return Decision(Login(Sessions(folder / SESSIONS), tokens, issuer, url, origins), owner=owner)


def _origins(urls: Collection[str]) -> frozenset[str]:
    return frozenset(url.rstrip("/").lower() for url in urls)


def _public_url(url: str) -> str | None:
    parts = urlsplit(url)
    if url and (
        parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query or "@" in url
    ):
        raise LoginOptionError("`public_url` must be as in https://medsegr.hospital.example, without a path.")
    return url or None


def _issuer(conf: Mapping[str, str]) -> Issuer | None:
    url = conf.get("oidc_issuer", "").strip()
    if not url:
        given = [name for name in OIDC_OPTIONS if conf.get(name)]
        if given:
            raise LoginOptionError(
                f"`{given[0]}` belongs to an issuer; name it with `--conf oidc_issuer URL`."
            )
        return None
    if not conf.get("oidc_client_id"):
        raise LoginOptionError(
            "`oidc_issuer` needs `--conf oidc_client_id ID`, the name of this server at the issuer."
        )
    secret_file = conf.get("oidc_client_secret_file")
    return Issuer(
        OidcSettings(
            issuer=url,
            client_id=conf["oidc_client_id"],
            secret=read_private(Path(secret_file)).strip() if secret_file else None,
            user_claim=conf.get("oidc_user_claim") or "preferred_username",
            admin_role=conf.get("oidc_admin_role") or None,
        )
    )
