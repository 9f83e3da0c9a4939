"""The model's process: `python -m medsegr.web.engine` loads a predictor and answers one question at a time.

Started by `worker.ModelWorker` with one end of a socket pair. When the other end closes, for whatever reason,
the process ends at once, so a killed server leaves no orphan. It writes no question, answer or exception
message to any log. Between questions it looks at images ahead ({"do": "score"}) for active learning.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from medsegr.errors import MedSegRError, QuestionError
from medsegr.imaging import Picture, Volume, measure, read_image
from medsegr.web.ahead import Ahead
from medsegr.web.jobs import Job, decode, encode
from medsegr.web.masks import Geometry
from medsegr.web.predicting import FindingLike, PredictorLike, build, golden

logger = logging.getLogger(__name__)
MAX_IMAGES = 4
MAX_IMAGE_BYTES = 1024 * 2**20

Stop = Callable[[], bool]
Say = Callable[[dict[str, Any]], None]


class Images:
    """The last few images read, by path, stack, time and size of the file, so that follow-ups do not read them
    again.
    """

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[str, int | None, int, int], Picture | Volume] = OrderedDict()

    def get(self, path: Path, stack: int | None = None) -> Picture | Volume:
        """Read `path`, or the stack of this number in it, or remember it; raises `ImageError`."""
        key = self._key(path, stack)
        if key not in self._read:
            self._read[key] = read_image(path, stack=stack)
            while len(self._read) > 1 and (len(self._read) > MAX_IMAGES or self._bytes() > MAX_IMAGE_BYTES):
                self._read.popitem(last=False)
        self._read.move_to_end(key)
        return self._read[key]

    def _bytes(self) -> int:
        return sum(
            i.pixels.nbytes if isinstance(i, Picture) else i.voxels.nbytes for i in self._read.values()
        )

    @staticmethod
    def _key(path: Path, stack: int | None) -> tuple[str, int | None, int, int]:
        try:
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            stats = [file.stat() for file in files]
        except OSError:
            return str(path), stack, 0, 0  # `read_image` says what is wrong with it
        newest = max((s.st_mtime_ns for s in stats), default=0)
        return str(path), stack, newest, sum(s.st_size for s in stats)


def answer(
    predictor: PredictorLike, images: Images, job: Job, say: Say, stop: Stop
) -> tuple[dict[str, Any], list[bytes]]:
    """Reply fields and packed masks for `job`; raises `MedSegRError`."""
    began = time.perf_counter()
    image = images.get(Path(job.image), job.stack)
    read = time.perf_counter()
    options: dict[str, Any] = {
        "on_text": lambda piece: say({"event": "text", "piece": piece}),
        "should_stop": stop,
        "max_new_tokens": job.max_new_tokens,
    }
    if isinstance(image, Picture):
        predictor.set_image(image)
        reply = predictor.ask(job.question, job.history, points=job.points, box=job.box, **options)
    else:
        if job.points or job.box:
            raise QuestionError("Points and boxes are understood in 2-D images only; this one is a volume.")
        options["on_progress"] = lambda done, total: say({"event": "progress", "done": done, "total": total})
        reply = predictor.ask_volume(image, job.question, job.history, slices=_slices(job, image), **options)
    answered = time.perf_counter()
    findings = [_finding(found, image) for found in reply.findings]
    packed = [
        np.packbits(np.ascontiguousarray(found.mask, dtype=np.bool_)).tobytes() for found in reply.findings
    ]
    latencies = {name: round(float(value), 1) for name, value in reply.latencies_ms.items()}
    latencies |= {
        "read_ms": _ms(read - began),
        "answer_ms": _ms(answered - read),
        "measure_ms": _ms(time.perf_counter() - answered),
    }
    fields = {
        "text": reply.text,
        "outcome": str(reply.outcome),
        "findings": findings,
        "geometry": Geometry.of(image).to_json(),
        "latencies": latencies,
    }
    return fields, packed


def _ms(seconds: float) -> float:
    return round(1000.0 * seconds, 1)


def _slices(job: Job, volume: Volume) -> range | None:
    """The slices asked for; raises `QuestionError` when the volume does not have them."""
    first, last = job.slices or (0, volume.n_slices - 1)
    if last >= volume.n_slices:
        raise QuestionError(
            f"`slices` goes to {last}, but this volume has slices 0 to {volume.n_slices - 1}."
        )
    if job.one_slice:
        middle = (first + last) // 2
        return range(middle, middle + 1)
    return range(first, last + 1) if job.slices else None


def _finding(found: FindingLike, image: Picture | Volume) -> dict[str, Any]:
    confidence = float(found.confidence)
    confidence = min(max(confidence, 0.0), 1.0) if confidence == confidence else 0.0
    sizes = {k: round(v, 3) if isinstance(v, float) else v for k, v in measure(found.mask, image).items()}
    return {
        "label": found.label,
        "phrase": found.phrase,
        "confidence": round(confidence, 4),
        "slices": None,
        **sizes,
    }


def _failure(error: Exception, doing: str) -> dict[str, Any]:
    """An error as plain data. Messages of foreign exceptions may hold question text, so only their place is
    logged.
    """
    if isinstance(error, MedSegRError):
        return {"event": "error", "kind": type(error).__name__, "sentence": str(error)}
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("The model failed with %s\n%s", type(error).__name__, frames)
    return {
        "event": "error",
        "kind": "internal",
        "sentence": f"The model failed while {doing} ({type(error).__name__}); the log says where.",
    }


class Engine:
    """Reads frames in a thread, answers in the main one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs: queue.SimpleQueue[tuple[Job, str]] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._images = Images()
        self._ahead = Ahead()

    def run(self, factory: str, checkpoint: str, device: str) -> int:
        """Load, report, then answer until the server goes away."""
        threading.Thread(target=self._listen, daemon=True).start()
        began = time.perf_counter()
        try:
            predictor = build(factory, checkpoint, device)
            golden(predictor, Path(checkpoint))
        except Exception as error:  # noqa: BLE001  # whatever loading raises must reach the server as a sentence
            self._say({**_failure(error, "it was loaded"), "event": "failed"})
            return 1
        self._say(
            {
                "event": "ready",
                "version": predictor.version,
                "licence": predictor.licence,
                "targets": list(predictor.targets),
                "load_ms": _ms(time.perf_counter() - began),
            }
        )
        while True:
            self._answer(predictor, *self._jobs.get())

    def _answer(self, predictor: PredictorLike, job: Job, do: str = "ask") -> None:
        masks: list[bytes] = []

        def stop() -> bool:
            return job.id in self._cancelled

        try:
            if do == "score":
                fields: dict[str, Any] = {"look": self._ahead.look(predictor, job, stop)}
            else:
                fields, masks = answer(predictor, self._images, job, self._say, stop)
            frame = encode({"event": "done", "masks": len(masks), **fields})
        except Exception as error:  # noqa: BLE001  # the process must live on for the next question
            frame, masks = encode(_failure(error, "it was answering")), []
        self._cancelled.discard(job.id)
        for part in (frame, *masks):
            self._connection.send_bytes(part)

    def _say(self, message: dict[str, Any]) -> None:
        self._connection.send_bytes(encode(message))

    def _listen(self) -> None:
        while True:
            try:
                message = decode(self._connection.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the server is gone; there is nobody to answer
            if message["do"] == "cancel":
                self._cancelled.add(message["id"])
            else:
                self._jobs.put((Job.from_json(message["job"]), message["do"]))


def main() -> int:
    """Entry point of the process; see `worker.ModelWorker` for the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--factory", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--niceness", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.WARNING, format="[%(asctime)s] [%(process)s] [%(levelname)s] (%(name)s) - %(message)s"
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    os.nice(arguments.niceness)
    return Engine(Connection(arguments.fd)).run(arguments.factory, arguments.checkpoint, arguments.device)


if __name__ == "__main__":
    sys.exit(main())
