"""A site that is a running server, used as a viewer would: it is asked, corrected and told to learn over HTTP.

Images are uploaded before they are asked about. What a version has learnt is measured from its directory, so the server must run
on this machine and its state folder must be readable here; the measured images never reach it.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image

from medsegr.errors import MedSegRError
from medsegr.imaging import Picture, write_label_map
from medsegr.imaging.label_reading import read_label_map
from medsegr.rounds.database import Database
from medsegr.rounds.registry import Registry

from .clinicians import Clinicians, Masks, findings_to_send
from .local import corrected, union_by_label
from .site import Corrected, RoundResult
from .streams import Item, Mask
from .wording import question

TIMEOUT_S = 120
POLL_S = 1.0
OPEN = ("queued", "running")


class ServerSite:
    """The server at `url` with the state folder `state`, started with `checkpoint`; see `Site`. `token`: of a user who may start
    rounds, where the server asks for a login."""

    def __init__(self, url: str, state: Path, checkpoint: Path, minutes: float, token: str = "") -> None:
        self.url, self.minutes = url.rstrip("/"), minutes
        self.session = requests.Session()
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"
        if not (state / "medsegr.sqlite").is_file():
            raise MedSegRError(
                f"{state} is no state folder of a server that runs; name the one of its --conf state."
            )
        self.registry = Registry(Database(state), checkpoint)
        self._uploaded: set[str] = set()

    def in_charge(self) -> tuple[str, Path]:
        """See `Site`."""
        version = self.registry.current()
        return version.name, version.directory

    def choose(self, items: Sequence[Item], strategy: str) -> Item:
        """See `Site`; the server chooses among all images of the pool that it has."""
        if strategy == "order":
            return items[0]
        known = {item.name: item for item in items}
        for item in items:
            self._upload(item)
        while True:
            chosen = str(self._json("GET", "/medsegr/next", params={"strategy": strategy})["image"])
            if chosen in known:
                return known[chosen]
            self._json("POST", "/medsegr/skip", json={"image": chosen})  # another benchmark's

    def correct(self, item: Item, clinicians: Clinicians) -> Corrected:
        """See `Site`."""
        self._upload(item)
        names = clinicians.names(item)
        text = question(names, item.name)
        reply = self._ask(item.name, text)
        picture = item.picture()
        labels = [str(f["label"]) for f in reply["findings"]]
        answered: Masks = union_by_label(
            [(label, self._mask(reply["turn_id"], n, picture)) for n, label in enumerate(labels, start=1)]
        )
        sent = clinicians.correct(item, names)
        self._submit(reply["turn_id"], findings_to_send(labels, sent), picture)
        return corrected(item, text, sent.editor, sent.flaw, sent.masks, answered)

    def run_round(self) -> RoundResult:
        """See `Site`."""
        began = time.monotonic()
        started = self._json("POST", "/medsegr/rounds", json={"max_minutes": self.minutes})
        number = int(started["id"])
        while (found := self._json("GET", f"/medsegr/rounds/{number}"))["status"] in OPEN:
            time.sleep(POLL_S)
        seconds = time.monotonic() - began
        version = self.registry.current().name
        while (
            self._json("GET", "/medsegr/models")["answering"] != version
        ):  # questions go to the new version from now on
            time.sleep(POLL_S)
        return RoundResult(
            number, str(found["status"]), str(found["sentence"]), seconds, version,
            found["challenger"], found["decision"],
        )  # fmt: skip

    def close(self) -> None:
        """See `Site`."""
        self.session.close()
        self.registry.database.dispose()

    def _upload(self, item: Item) -> None:
        if item.name in self._uploaded:
            return
        stream = io.BytesIO()
        Image.fromarray(item.pixels()).save(stream, "PNG")
        files = {"file": (f"{item.name}.png", stream.getvalue(), "image/png")}
        self._json("PUT", "/datastore/image", params={"image": item.name}, files=files)
        self._uploaded.add(item.name)

    def _ask(self, image: str, text: str) -> dict[str, Any]:
        body = {"image": image, "question": text}
        with self.session.post(f"{self.url}/medsegr/ask", json=body, stream=True, timeout=TIMEOUT_S) as reply:
            _check(reply)
            for event, data in events(reply.iter_lines(decode_unicode=True)):
                if event == "done":
                    return data
                if event == "error":
                    raise MedSegRError(f"The server could not answer: {data.get('detail')}")
        raise MedSegRError("The server ended its reply without an answer.")

    def _mask(self, turn: str, n: int, picture: Picture) -> Mask:
        reply = self.session.get(f"{self.url}/medsegr/turns/{turn}/masks/{n}", timeout=TIMEOUT_S)
        _check(reply)
        with tempfile.TemporaryDirectory(prefix="medsegr-") as folder:
            path = Path(folder) / "mask.nrrd"
            path.write_bytes(reply.content)
            return np.asarray(read_label_map(path, picture, "The server's mask").values != 0)

    def _submit(self, turn: str, findings: Sequence[tuple[int | None, str, Mask]], picture: Picture) -> None:
        body: dict[str, Any] = {"turn_id": turn, "verdict": "edited", "findings": []}
        files = {}
        with tempfile.TemporaryDirectory(prefix="medsegr-") as folder:
            for k, (n, label, mask) in enumerate(findings, start=1):
                part = f"mask{k}"
                path = Path(folder) / f"{part}.nrrd"
                write_label_map(path, mask.astype(np.uint8), picture)
                files[part] = (path.name, path.read_bytes(), "application/octet-stream")
                body["findings"].append({"label": label, "mask": part, **({"n": n} if n else {})})
        self._json("POST", "/medsegr/corrections", data={"correction": json.dumps(body)}, files=files)

    def _json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        reply = self.session.request(method, self.url + path, timeout=TIMEOUT_S, **more)
        _check(reply)
        found: dict[str, Any] = reply.json()
        return found


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events as (name, data); comments are passed over."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def _check(reply: requests.Response) -> None:
    if not reply.ok:
        raise MedSegRError(f"The server refused ({reply.status_code}): {reply.text[:300]}")
