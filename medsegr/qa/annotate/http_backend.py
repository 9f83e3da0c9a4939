"""A language model behind an OpenAI-compatible endpoint (`POST {base}/chat/completions`), with patience.

Timeouts, broken connections, 408, 429, 5xx and replies that are no completion are tried again, after a growing, jittered wait
or as long as Retry-After asks for. The key goes into one header; it is never part of an error, a log or a file.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from pydantic import BaseModel, ValidationError

from medsegr.errors import MedSegRError
from medsegr.qa.annotate.backend import EmptyReply, Message, RequestRefused, Unavailable

TRANSIENT = frozenset({408, 425, 429})
REFUSED = frozenset({400, 413, 422})
MAX_BYTES = 4 << 20
MAX_RETRY_AFTER_S = 600.0


class _Said(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Said
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice]


class _Transient(Exception):  # noqa: N818
    """Worth another try; `wait_s`: what the server asked for."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class HttpBackend:
    """The chat completions of one model.

    timeout_s: for connecting, for each silence, and for a whole answer; tries: requests before giving up; waits between them
    are jittered and double from `first_wait_s` up to `longest_wait_s`. Raises `MedSegRError` for an address or a key that
    cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        model: str,
        key: str | None = None,
        *,
        timeout_s: float = 120.0,
        tries: int = 6,
        first_wait_s: float = 1.0,
        longest_wait_s: float = 60.0,
    ) -> None:
        self._url, shown = _addresses(endpoint)
        self._model, self._timeout_s, self._tries = model, timeout_s, tries
        self._first_wait_s, self._longest_wait_s = first_wait_s, longest_wait_s
        self._key = _checked_key(key)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.Client(timeout=timeout_s, headers=headers)
        self._closed = threading.Event()
        self._jitter = random.Random()
        self.provenance: Mapping[str, str] = {"backend": "openai", "model": model, "endpoint": shown}

    def complete(self, messages: Sequence[Message]) -> str:
        """The reply; raises `Unavailable`, `RequestRefused`, `EmptyReply`, or `MedSegRError` for a wrong set-up."""
        for attempt in range(1, self._tries + 1):
            try:
                return self._once(messages)
            except _Transient as error:
                if attempt == self._tries:
                    raise Unavailable(
                        f"The endpoint gave no usable answer in {attempt} tries; the last time: {error}."
                    ) from error
                if self._closed.wait(self._wait_s(attempt, error.wait_s)):
                    break
        raise Unavailable("The endpoint was given up before it answered.")

    def close(self) -> None:
        """End every wait between two tries, and the connections."""
        self._closed.set()
        self._client.close()

    def _wait_s(self, attempt: int, asked_s: float | None) -> float:
        """Seconds before the next try: never less than the server asked for."""
        grown = min(self._longest_wait_s, self._first_wait_s * 2.0 ** (attempt - 1))
        return max(min(asked_s or 0.0, MAX_RETRY_AFTER_S), grown * self._jitter.uniform(0.5, 1.0))

    def _once(self, messages: Sequence[Message]) -> str:
        if self._closed.is_set():
            raise Unavailable("The endpoint was given up before it was asked.")
        payload = {"model": self._model, "messages": [dict(m) for m in messages], "stream": False}
        try:
            with self._client.stream("POST", self._url, json=payload) as response:
                body = self._read(response)
        except httpx.TimeoutException as error:
            raise _Transient(f"no answer within {self._timeout_s:g} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _Transient(f"the connection failed ({type(error).__name__})") from error
        if response.status_code != httpx.codes.OK:
            raise self._failure(response, body)
        return _content(body)

    def _read(self, response: httpx.Response) -> bytes:
        """The body; an endless or an endlessly slow one is given up."""
        deadline, body = time.monotonic() + self._timeout_s, bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > MAX_BYTES:
                raise _Transient(f"the answer is longer than {MAX_BYTES >> 20} MiB")
            if time.monotonic() > deadline:
                raise _Transient(f"the answer was not complete within {self._timeout_s:g} s")
        return bytes(body)

    def _failure(self, response: httpx.Response, body: bytes) -> Exception:
        status = response.status_code
        if status in TRANSIENT or status >= 500:
            return _Transient(f"status {status}", retry_after_s(response.headers.get("Retry-After")))
        if status in {401, 403}:
            return MedSegRError(
                f"The endpoint answered {status}; expected a valid key in the variable named by --api-key-env."
            )
        said = " ".join(body.decode("utf-8", "replace").split())[:300]
        if self._key:
            said = said.replace(self._key, "***")
        if status in REFUSED:
            return RequestRefused(f"the endpoint refused the request with {status}: {said}")
        return MedSegRError(
            f"The endpoint answered {status} ({said}); expected an OpenAI-compatible base address, such as "
            "http://127.0.0.1:8000/v1, and a model that it serves."
        )


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After header (a number, or an HTTP date), or None (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            when = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    return seconds if 0 <= seconds < float("inf") else None


def _content(body: bytes) -> str:
    try:
        choices = _Completion.model_validate_json(body).choices
    except ValidationError as error:
        raise _Transient("the body is no chat completion") from error
    if not choices or not (choices[0].message.content or "").strip():
        raise EmptyReply("the model replied without text")
    if choices[0].finish_reason == "length":
        raise EmptyReply("the reply was cut off at the model's length limit")
    return choices[0].message.content or ""


def _addresses(endpoint: str) -> tuple[str, str]:
    """Where to post, and the address that may be shown: without user, password and query."""
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL as error:
        raise MedSegRError(
            f"The endpoint is no address ({error}); expected such as http://127.0.0.1:8000/v1."
        ) from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise MedSegRError(
            "The endpoint is no http or https address; expected such as http://127.0.0.1:8000/v1."
        )
    target = url.copy_with(path=f"{url.path.rstrip('/')}/chat/completions")
    return str(target), str(url.copy_with(username=None, password=None, query=None, fragment=None))


def _checked_key(key: str | None) -> str | None:
    key = (key or "").strip()
    if not key.isascii() or not key.isprintable():
        raise MedSegRError("The API key holds characters that no header can carry; expected printable ASCII.")
    return key or None
