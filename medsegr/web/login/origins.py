"""Where a request comes from and where a login may lead to: our own pages, and nothing else."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

MAX_NEXT = 4000


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host` (or is called by that name)."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(connection: HTTPConnection) -> str:
    """The name by which the client called the server, without the port; "" if it gave none that can be read."""
    try:
        return urlsplit(f"//{connection.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def from_our_pages(connection: HTTPConnection, trusted: Collection[str] = ()) -> bool:
    """Whether no foreign web page sent this request, as far as a browser can tell us.

    Browsers send `Sec-Fetch-Site`, or at least `Origin` with everything that a page could read or change; what sends
    neither is no page. `trusted` are further origins, such as "https://viewer.hospital.example".
    """
    origin = connection.headers.get("origin")
    if origin is not None and origin.rstrip("/").lower() in trusted:
        return True
    site = connection.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    if site is not None or origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and parts.netloc.lower() == connection.headers.get("host", "").lower()
    )


def from_local_page(connection: HTTPConnection) -> bool:
    """Whether a page of this machine sent the request, from whatever port; for a server that is called localhost."""
    if connection.headers.get("sec-fetch-site") == "same-site":
        return True
    try:
        return is_loopback(urlsplit(connection.headers.get("origin", "")).hostname or "")
    except ValueError:
        return False


def safe_next(path: str | None, fallback: str) -> str:
    """`path` if it stays on this server (an absolute path with perhaps a query), else `fallback`.

    Browsers drop control characters and read a backslash as a slash, so neither may occur.
    """
    if not path or len(path) > MAX_NEXT or not path.startswith("/") or path.startswith("//"):
        return fallback
    if "\\" in path or any(ord(c) <= 32 or ord(c) == 127 for c in path):
        return fallback
    try:
        parts = urlsplit(path)
    except ValueError:
        return fallback
    return path if not parts.scheme and not parts.netloc else fallback


def cookie_counts(connection: HTTPConnection, trusted: Collection[str] = ()) -> bool:
    """Whether the cookie of this request speaks for its user: not where a foreign page made the browser send it, unless
    it merely opens a page of ours (a link in a worklist).
    """
    if from_our_pages(connection, trusted):
        return True
    headers = connection.headers
    opens_page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    safe = connection.scope["type"] == "http" and connection.scope["method"] in ("GET", "HEAD")
    return safe and opens_page and "origin" not in headers
