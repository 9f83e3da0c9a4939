"""The six questions, how they are asked over HTTP, and what came back."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import SimpleITK as sitk
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException
from numpy.typing import NDArray
from server import ServerError


@dataclass(frozen=True)
class Question:
    """What is asked about which image. `expects`: labels that a right answer names, () for "not present".

    `truth`: organs of the phantom whose union is the exact mask. `follows`: the question before it, on the same
    image, is its history. `stock_client`: asked by MONAI Label's own client instead of the event stream.
    """

    kind: str
    image: str
    text: str
    expects: tuple[str, ...]
    truth: tuple[str, ...] = ()
    follows: bool = False
    stock_client: bool = False
    remark: str = ""


QUESTIONS = (
    Question(
        "implicit", "retina", "Which structures bring blood to the light-sensitive layer of this eye?",
        ("retinal blood vessels",),
        remark="Not from the sets that the model was trained on; the picture has no expert mask to compare with.",
    ),
    Question(
        "not present", "retina", "Is a fetal head visible in this image?", (), follows=True,
    ),
    Question(
        "explicit", "ihc", "Please outline the cell nuclei.", ("cell nuclei",),
        remark="A brown immunostain, unlike most training images; the picture has no expert mask to compare with.",
    ),
    Question(
        "explicit, whole volume", "torso", "Where is the liver in this scan?", ("liver",), truth=("liver",),
        remark="A body made of ellipsoids; real scans are harder in places and easier in others.",
    ),
    Question(
        "implicit, follow-up, whole volume", "torso", "And which organs filter the blood and make urine?",
        ("kidneys", "left kidney", "right kidney"), truth=("left kidney", "right kidney"), follows=True,
    ),
    Question(
        "implicit, MONAI Label's client", "CT_small", "Which vessel here carries blood from the heart to the body?",
        ("aorta",), stock_client=True,
        remark="A crop of 85 mm around one chest vertebra; the model was trained on whole slices of the abdomen.",
    ),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Answer:
    """The server's reply: its `params`, one mask [H, W] or [X, Y, Z] per finding, and seconds until it was complete."""

    question: Question
    params: dict[str, Any]
    masks: tuple[NDArray[np.bool_], ...]
    seconds: float

    @property
    def labels(self) -> tuple[str, ...]:
        """What the findings are called."""
        return tuple(found["label"] for found in self.params["findings"])

    def outlined(self) -> NDArray[np.bool_] | None:
        """All findings that the question is about, together; None if there are none."""
        wanted = [
            m for label, m in zip(self.labels, self.masks, strict=True) if label in self.question.expects
        ]
        return np.logical_or.reduce(wanted) if wanted else None


def ask(url: str, question: Question, history: Sequence[dict[str, str]]) -> Answer:
    """Ask and wait for the whole reply; raises `ServerError`."""
    began = time.perf_counter()
    send = _by_client if question.stock_client else _by_events
    params = send(url, question, list(history))
    seconds = time.perf_counter() - began
    masks = tuple(_mask(url, params["turn_id"], found["n"]) for found in params["findings"])
    return Answer(question, params, masks, seconds)


def _by_events(url: str, question: Question, history: list[dict[str, str]]) -> dict[str, Any]:
    """`POST /medsegr/ask`: server-sent events, the last of which is `done` with the reply."""
    body = {"image": question.image, "question": question.text, "history": history}
    kind = ""
    with httpx.stream("POST", f"{url}/medsegr/ask", json=body, timeout=300) as reply:
        if reply.status_code != httpx.codes.OK:
            raise ServerError(
                f"/medsegr/ask answered {reply.status_code}: {reply.read().decode(errors='replace')}"
            )
        for line in reply.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "done":
                params: dict[str, Any] = json.loads(value)
                return params
            elif name == "data" and kind == "error":
                raise ServerError(
                    f"/medsegr/ask refused the question: {json.loads(value).get('detail', value)}"
                )
    raise ServerError("/medsegr/ask ended without a reply.")


def _by_client(url: str, question: Question, history: list[dict[str, str]]) -> dict[str, Any]:
    """`POST /infer/medsegr` as MONAI Label's Python client sends it."""
    with tempfile.TemporaryDirectory(prefix="medsegr-demo-") as folder:
        client = MONAILabelClient(url, tmpdir=folder)
        try:
            label_map, params = client.infer(
                "medsegr", question.image, {"question": question.text, "history": history}
            )
        except MONAILabelClientException as error:
            raise ServerError(f"/infer/medsegr refused the question: {error.message}") from error
        if not label_map or not Path(label_map).is_file():
            raise ServerError("/infer/medsegr sent no label map.")
    reply: dict[str, Any] = params
    return reply


def _mask(url: str, turn_id: str, n: int) -> NDArray[np.bool_]:
    """The whole mask of one finding, on the image's own grid."""
    reply = httpx.get(f"{url}/medsegr/turns/{turn_id}/masks/{n}", timeout=60)
    if reply.status_code != httpx.codes.OK:
        raise ServerError(f"The mask of finding {n} could not be fetched: status {reply.status_code}.")
    with tempfile.TemporaryDirectory(prefix="medsegr-demo-") as folder:
        path = Path(folder) / "mask.nrrd"
        path.write_bytes(reply.content)
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return np.asarray(values.T if values.ndim == 3 else values) > 0
