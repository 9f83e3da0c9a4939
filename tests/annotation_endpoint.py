"""For tests of the annotation: a small hospital, and a real HTTP server that speaks the OpenAI protocol, well or badly."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SECRETS = ("SMITH-JANE-1957", "st_elsewhere", "scan_jane")
TARGETS = {"spleen": [1], "right kidney": [2], "left kidney": [3], "kidneys": [2, 3], "liver": [6]}
DESCRIPTIONS = {
    "spleen": ("filters worn-out red cells from the circulation", "sits high on the left under the ribs"),
    "liver": ("produces bile and stores glycogen for the body", "fills the upper right of the belly"),
    "left kidney": (
        "makes urine for the body on the patient's left side",
        "sits low on the left of the spine",
    ),
    "right kidney": (
        "makes urine for the body on the patient's right side",
        "sits low on the right of the spine",
    ),
    "kidneys": (
        "regulate the blood pressure by means of renin as a pair",
        "flank the spine on the left and right",
    ),
}
REASON = "because the description given in the question fits it best among the structures shown here"


def torso() -> NDArray[np.uint8]:
    """An axial CT slice in radiological convention, [64, 64]: liver and right kidney on the image's left."""
    labels = np.zeros((64, 64), np.uint8)
    labels[8:30, 4:24] = 6
    labels[8:20, 48:60] = 1
    labels[40:50, 10:20] = 2
    labels[40:50, 44:54] = 3
    return labels


def write_hospital(folder: Path, labels: NDArray[np.uint8]) -> Path:
    """Three slices with the same label map."""
    home = folder / "ward_nine"
    (home / "images").mkdir(parents=True)
    (home / "masks").mkdir()
    images = {}
    for number, split in enumerate(("train", "train", "val")):
        stem = f"{SECRETS[2]}_{number}"
        Image.fromarray(labels * 20).save(home / "images" / f"{stem}.png")
        Image.fromarray(labels).save(home / "masks" / f"{stem}.png")
        images[stem] = {"patient_id": f"{SECRETS[0]}-{split}", "split": split}
    record = {
        "name": SECRETS[1],
        "modality": "CT",
        "region": "abdomen",
        "targets": TARGETS,
        "labels_are_exhaustive": True,
        "licence": "CC0",
        "licence_class": "permissive",
        "images": images,
    }
    (home / "dataset.json").write_text(json.dumps(record))
    return folder


def step_of(prompt: str) -> str:
    """Which step a prompt belongs to."""
    signs = {
        "describe": "Write two descriptions",
        "ask": "Turn it into one question",
        "converse": "Write a dialogue",
        "review": "Examine them strictly",
    }
    return next(step for step, sign in signs.items() if sign in prompt)


def target_of(prompt: str) -> str:
    """The target that a prompt is about."""
    return re.search(r'"class": "([^"]+)"', prompt)[1]  # type: ignore[index]


def answer_about(name: str) -> str:
    """A sound answer of 17 words and more."""
    verb = "are" if name == "kidneys" else "is"
    return f"The <p>{name}</p> [SEG] {verb} the one asked for, {REASON}."


def good(prompt: str) -> str:
    """What an honest, able model replies."""
    step, name = step_of(prompt), target_of(prompt)
    attribute, location = DESCRIPTIONS[name]
    if step == "describe":
        return json.dumps({"attribute": attribute, "location": location})
    if step == "ask":
        given = re.search(r'This description fits the target: "([^"]+)"', prompt)[1]  # type: ignore[index]
        return json.dumps({"question": f"Outline what {given}.", "answer": answer_about(name)})
    if step == "converse":
        questions = {
            "observe": f"What in this slice {location}?",
            "reason": f"What here {attribute}?",
            "segment": f"Please outline the {name} now.",
            "follow_up": "How large is the region that you just outlined?",
        }
        turns = [{"step": s, "question": q, "answer": answer_about(name)} for s, q in questions.items()]
        return "```json\n" + json.dumps({"turns": turns}) + "\n```"
    return json.dumps({"verdict": "keep", "reason": "nothing is wrong"})


@dataclass
class Request:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][0]["content"])


@dataclass
class Sent:
    """What the server does with a request: a reply of the model, or something else that networks do."""

    text: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    before_s: float = 0.0
    cut: int = 0
    reset: bool = False
    drip_s: float = 0.0
    finish: str = "stop"


Behaviour = Callable[[int, Request], Sent]


class Endpoint:
    """The server: `behaviour` decides, from the number of the request (from 1) and the request, what is sent."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = lambda _, request: Sent(good(request.prompt))
        self.requests: list[Request] = []
        self.times: list[float] = []
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                owner.serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["Content-Length"]))
        request = Request(handler.path, dict(handler.headers), raw)
        with self._lock:
            self.requests.append(request)
            self.times.append(time.monotonic())
            number = len(self.requests)
        sent = self.behaviour(number, request)
        time.sleep(sent.before_s)
        with contextlib.suppress(OSError):  # the client goes away, as it should, from a slow server
            self._send(handler, sent)

    def _send(self, handler: BaseHTTPRequestHandler, sent: Sent) -> None:
        if sent.reset:  # RST instead of a reply
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            return
        choice = {"message": {"role": "assistant", "content": sent.text}, "finish_reason": sent.finish}
        body = sent.raw if sent.raw is not None else json.dumps({"choices": [choice]}).encode()
        handler.send_response(sent.status)
        for name, value in sent.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if sent.drip_s:
            for byte in body:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                time.sleep(sent.drip_s)
        handler.wfile.write(body[: len(body) - sent.cut])
