"""The HTTP backend against a real server: patience with what may pass, an end to what will not, and a key that stays secret."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from medsegr.errors import MedSegRError
from medsegr.qa.annotate.backend import EmptyReply, RequestRefused, Unavailable
from medsegr.qa.annotate.http_backend import HttpBackend, retry_after_s
from tests.annotation_endpoint import Endpoint, Sent

KEY = "sk-very-secret-123"
HELLO = [{"role": "user", "content": "Hello."}]


@pytest.fixture
def backend(endpoint: Endpoint) -> Iterator[HttpBackend]:
    made = HttpBackend(
        endpoint.url, "some-model", KEY, timeout_s=0.4, tries=3, first_wait_s=0.01, longest_wait_s=0.02
    )
    yield made
    made.close()


def first(*sent: Sent) -> object:
    """These, one a request, then "Good day."."""
    return lambda number, _: sent[number - 1] if number <= len(sent) else Sent("Good day.")


def test_one_request_has_the_documented_form(endpoint: Endpoint, backend: HttpBackend) -> None:
    endpoint.behaviour = first()
    assert backend.complete(HELLO) == "Good day."
    (request,) = endpoint.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.body == {"model": "some-model", "messages": HELLO, "stream": False}


@pytest.mark.parametrize(
    "broken",
    [
        Sent(status=500, raw=b"oops"),
        Sent(status=503, raw=b""),
        Sent(status=429, raw=b"{}"),
        Sent(status=408, raw=b""),
        Sent("late", before_s=0.8),
        Sent("slow " * 20, drip_s=0.01),
        Sent("cut", cut=20),
        Sent(reset=True),
        Sent(raw=b"<html>proxy</html>"),
        Sent(raw=b'{"choices": "none"}'),
        Sent(raw=b'{"error": "overloaded"}'),
    ],
    ids=["500", "503", "429", "408", "late", "dripping", "truncated", "reset", "html", "odd", "no choices"],
)
def test_what_may_pass_is_tried_again(endpoint: Endpoint, backend: HttpBackend, broken: Sent) -> None:
    endpoint.behaviour = first(broken, broken)
    assert backend.complete(HELLO) == "Good day."
    assert len(endpoint.requests) == 3


def test_it_gives_up_after_the_last_try(endpoint: Endpoint, backend: HttpBackend) -> None:
    endpoint.behaviour = lambda *_: Sent(status=502, raw=b"")
    with pytest.raises(Unavailable, match="in 3 tries; the last time: status 502"):
        backend.complete(HELLO)
    assert len(endpoint.requests) == 3


def test_nobody_listening_is_unavailable(endpoint: Endpoint) -> None:
    endpoint.stop()
    backend = HttpBackend(endpoint.url, "m", timeout_s=0.4, tries=2, first_wait_s=0.01)
    with pytest.raises(Unavailable, match="ConnectError"):
        backend.complete(HELLO)


def test_retry_after_is_waited_for(endpoint: Endpoint, backend: HttpBackend) -> None:
    endpoint.behaviour = first(Sent(status=429, headers={"Retry-After": "0.5"}, raw=b""))
    backend.complete(HELLO)
    assert 0.5 <= endpoint.times[1] - endpoint.times[0] < 5


def test_waits_grow_and_are_jittered() -> None:
    backend = HttpBackend("http://127.0.0.1:1/v1", "m", first_wait_s=1.0, longest_wait_s=4.0)
    for attempt, most in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 4.0)):
        waits = {backend._wait_s(attempt, None) for _ in range(50)}
        assert len(waits) > 10
        assert most / 2 <= min(waits) <= max(waits) <= most
    assert backend._wait_s(1, 30.0) == 30.0
    assert backend._wait_s(1, 1e9) == 600.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.25", 0.25),
        ("Wed, 01 Jan 2025 00:00:30 GMT", 30.0),
        ("Tue, 31 Dec 2024 23:59:00 GMT", None),
        ("-3", None),
        ("nan", None),
        ("soon", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, now=datetime(2025, 1, 1, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("sent", "kind", "expected"),
    [
        (Sent(status=400, raw=b"context too long"), RequestRefused, "with 400: context too long"),
        (Sent(status=413, raw=b""), RequestRefused, "413"),
        (Sent(""), EmptyReply, "without text"),
        (Sent(None), EmptyReply, "without text"),
        (Sent("half of a", finish="length"), EmptyReply, "cut off"),
        (Sent(status=401, raw=b"no"), MedSegRError, "answered 401; expected a valid key"),
        (Sent(status=404, raw=b"no model m"), MedSegRError, "no model m"),
        (Sent(status=302, headers={"Location": "http://x/"}, raw=b""), MedSegRError, "answered 302"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(
    endpoint: Endpoint, backend: HttpBackend, sent: Sent, kind: type[MedSegRError], expected: str
) -> None:
    endpoint.behaviour = lambda *_: sent
    with pytest.raises(kind, match=expected) as error:
        backend.complete(HELLO)
    assert type(error.value) is kind
    assert len(endpoint.requests) == 1


def test_the_key_is_never_told(
    endpoint: Endpoint, backend: HttpBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.behaviour = lambda number, _: Sent(status=400, raw=f"bad key {KEY}".encode())
    with pytest.raises(RequestRefused, match=r"bad key \*\*\*") as error:
        backend.complete(HELLO)
    told = f"{error.value}{error.value.__cause__}{caplog.text}{backend!r}{backend.provenance}"
    assert KEY not in told


def test_provenance_has_no_password() -> None:
    backend = HttpBackend("https://me:pw@host.example/v1/?token=t", "m")
    assert backend.provenance == {
        "backend": "openai",
        "model": "m",
        "endpoint": "https://host.example/v1/",
    }


@pytest.mark.parametrize("endpoint_url", ["host:8000/v1", "ftp://host/v1", "http://", "", "http://[::1"])
def test_no_address_is_refused(endpoint_url: str) -> None:
    with pytest.raises(MedSegRError, match=r"expected such as http://127\.0\.0\.1:8000/v1"):
        HttpBackend(endpoint_url, "m")


def test_a_key_that_no_header_carries_is_refused() -> None:
    with pytest.raises(MedSegRError, match="printable ASCII") as error:
        HttpBackend("http://127.0.0.1:1/v1", "m", "geheim-ü")
    assert "geheim" not in str(error.value)


def test_closing_ends_a_long_wait(endpoint: Endpoint) -> None:
    import threading

    endpoint.behaviour = lambda *_: Sent(status=429, headers={"Retry-After": "60"}, raw=b"")
    backend = HttpBackend(endpoint.url, "m", timeout_s=2)
    threading.Timer(0.3, backend.close).start()
    start = time.monotonic()
    with pytest.raises(Unavailable, match="given up"):
        backend.complete(HELLO)
    assert time.monotonic() - start < 5
