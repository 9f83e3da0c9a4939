"""What crosses the pipe between the server and the model's process: JSON frames, then one binary frame per
mask.

Nothing is pickled, so neither side can make the other run code, and a frame can be read in any language.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class EventKind(StrEnum):
    """What can happen to a question, in order; `done` and `error` are the last."""

    QUEUED = "queued"
    STARTED = "started"
    PROGRESS = "progress"
    TEXT = "text"
    FINDING = "finding"
    DONE = "done"
    ERROR = "error"


@dataclass(frozen=True)
class Job:
    """One question for the model. `image` is a path that the server has already approved; `slices` includes
    both ends.

    `one_slice` answers about a single slice of a volume: the one in `slices`, else the middle one. `stack` is the number of the
    one to read where `image` is a DICOM series of several.
    """

    id: str
    image: str
    question: str
    history: tuple[tuple[str, str], ...] = ()
    slices: tuple[int, int] | None = None
    points: tuple[tuple[float, float, int], ...] | None = None
    box: tuple[float, float, float, float] | None = None
    max_new_tokens: int | None = None
    one_slice: bool = False
    stack: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for the pipe."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """The inverse of `to_json`."""
        return cls(
            id=data["id"],
            image=data["image"],
            question=data["question"],
            history=tuple((q, a) for q, a in data["history"]),
            slices=tuple(data["slices"]) if data["slices"] else None,
            points=tuple((p[0], p[1], p[2]) for p in data["points"]) if data["points"] else None,
            box=tuple(data["box"]) if data["box"] else None,
            max_new_tokens=data["max_new_tokens"],
            one_slice=data["one_slice"],
            stack=data["stack"],
        )


@dataclass(frozen=True)
class Event:
    """News about one job; `masks` (packed bits, one per finding) come with `done` only."""

    kind: EventKind
    data: dict[str, Any] = field(default_factory=dict)
    masks: tuple[bytes, ...] = ()


def encode(message: dict[str, Any]) -> bytes:
    """One JSON frame."""
    return json.dumps(message, allow_nan=False).encode()


def decode(frame: bytes) -> dict[str, Any]:
    """The inverse of `encode`."""
    message: dict[str, Any] = json.loads(frame)
    return message
