"""Clients that ask a running server, one question after the other, and note how long each took and who answered it."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests
from PIL import Image

from medsegr.errors import MedSegRError
from medsegr.imaging import to_rgb
from medsegr.phantom import make_torso

from .remote import events

KINDS = ("first question", "follow-up")
FIRST, FOLLOW_UP = "Which organ here makes bile and clears toxins from the blood?", "And the spleen?"
TIMEOUT_S = 120


@dataclass(frozen=True)
class Asked:
    """One question. Times in s of this machine's steady clock: sent, begun to be answered (as the server said), done."""

    kind: str
    sent: float
    begun: float
    done: float
    version: str
    answer: str
    error: str

    @property
    def seconds(self) -> float:
        """From sending to the whole answer."""
        return self.done - self.sent


class Pictures:
    """512 x 512 phantom slices, each with a pixel of its own, so that no cache knows one that was not asked about."""

    def __init__(self) -> None:
        torso = make_torso(seed=3)
        plane = int(np.argmax(torso.mask("liver").sum(axis=(0, 1))))
        grey = Image.fromarray(to_rgb(torso.volume.slice_pixels(plane), "CT")[..., 0])
        self._pixels = np.asarray(grey.resize((512, 512), Image.Resampling.BILINEAR))
        self._made = 0

    def next(self) -> tuple[str, bytes]:
        """A name and a PNG."""
        pixels = self._pixels.copy()
        pixels[self._made // 512, self._made % 512] = 255
        self._made += 1
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return f"asked-{self._made:05}", stream.getvalue()


class Client:
    """Talks to the server at `url`; for one thread."""

    def __init__(self, url: str) -> None:
        self.url, self._session = url, requests.Session()

    def json(self, method: str, path: str, **more: Any) -> Any:
        """What a route replies; raises `MedSegRError` for a refusal."""
        reply = self._session.request(method, self.url + path, timeout=TIMEOUT_S, **more)
        if not reply.ok:
            raise MedSegRError(f"The server refused ({reply.status_code}): {reply.text[:300]}")
        return reply.json()

    def upload(self, name: str, png: bytes) -> None:
        """Add a picture to the server's folder."""
        files = {"file": (f"{name}.png", png, "image/png")}
        self.json("PUT", "/datastore/image", params={"image": name}, files=files)

    def ask(self, kind: str, image: str, question: str, history: list[dict[str, str]]) -> Asked:
        """Ask, and wait for the answer; what goes wrong is noted, not raised."""
        body = {"image": image, "question": question, "history": history}
        sent = begun = time.monotonic()
        error = "no answer"
        try:
            url = f"{self.url}/medsegr/ask"
            with self._session.post(url, json=body, stream=True, timeout=TIMEOUT_S) as reply:
                reply.raise_for_status()
                for event, data in events(reply.iter_lines(decode_unicode=True)):
                    now = time.monotonic()
                    if event == "started":
                        begun = now
                    elif event == "done":
                        return Asked(kind, sent, begun, now, data["model_version"], data["answer"], "")
                    elif event == "error":
                        error = str(data.get("detail"))
        except requests.RequestException as failure:
            error = type(failure).__name__
        return Asked(kind, sent, begun, time.monotonic(), "", "", error)


class Asker:
    """Asks in a thread of its own until it is told to end, or `pairs` times: a new picture, then a follow-up about it."""

    def __init__(self, url: str, pictures: Pictures, pause_s: float, pairs: int | None = None) -> None:
        self.asked: list[Asked] = []
        self._client, self._pictures, self._pause_s, self._pairs = Client(url), pictures, pause_s, pairs
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self) -> list[Asked]:
        """Until all pairs were asked."""
        self._thread.join()
        return self.asked

    def end(self) -> list[Asked]:
        """After the question that is being answered."""
        self._end.set()
        return self.wait()

    def _run(self) -> None:
        done = 0
        while not self._end.is_set() and done != self._pairs:
            done += 1
            name, png = self._pictures.next()
            self._client.upload(name, png)
            first = self._client.ask(KINDS[0], name, FIRST, [])
            self.asked.append(first)
            self._end.wait(self._pause_s)
            history = [{"question": FIRST, "answer": first.answer}] if first.answer else []
            self.asked.append(self._client.ask(KINDS[1], name, FOLLOW_UP, history))
            self._end.wait(self._pause_s)
