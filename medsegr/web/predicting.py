"""What the model's process expects of a predictor, how it makes one, and how it checks that it works."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medsegr.errors import CheckpointError
from medsegr.imaging import Picture, read_image


class FindingLike(Protocol):
    """A finding as `medsegr.predictor.Finding` has it."""

    @property
    def label(self) -> str: ...
    @property
    def phrase(self) -> str: ...
    @property
    def mask(self) -> NDArray[np.bool_]: ...
    @property
    def confidence(self) -> float: ...


class ReplyLike(Protocol):
    """A reply as `medsegr.predictor.Reply` has it."""

    @property
    def text(self) -> str: ...
    @property
    def findings(self) -> tuple[Any, ...]: ...
    @property
    def latencies_ms(self) -> dict[str, float]: ...


class PredictorLike(Protocol):
    """The part of `medsegr.predictor.Predictor` that this process uses."""

    targets: tuple[str, ...]
    version: str
    licence: str

    def set_image(self, image: Any, modality: str | None = None) -> None: ...
    def ask(self, question: str, history: Any = (), **options: Any) -> ReplyLike: ...
    def ask_volume(self, volume: Any, question: str, history: Any = (), **options: Any) -> ReplyLike: ...


def golden(predictor: PredictorLike, checkpoint: Path) -> None:
    """Ask one question whose answer is known; raises `CheckpointError` when the model fails it.

    A checkpoint may bring `golden.json` {"image", "question", "label", "mask", "min_dice"} with files beside
    it; without one the reply to a plain grey picture must have the right form.
    """
    brought = checkpoint / "golden.json"
    case: dict[str, Any] = json.loads(brought.read_text(encoding="utf-8")) if brought.is_file() else {}
    image = read_image(checkpoint / case["image"]) if case else None
    picture = (
        image
        if isinstance(image, Picture)
        else Picture(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)), "CT", None)
    )
    predictor.set_image(picture)
    reply = predictor.ask(str(case.get("question", "Which organ stores bile?")))
    masks = [np.asarray(found.mask) for found in reply.findings]
    if not isinstance(reply.text, str) or any(
        m.shape != picture.pixels.shape[:2] or m.dtype != np.bool_ for m in masks
    ):
        raise CheckpointError(
            "The golden question got a reply of the wrong form; the checkpoint does not fit this version."
        )
    if case:
        wanted = read_image(checkpoint / case["mask"])
        truth = np.asarray(wanted.pixels if isinstance(wanted, Picture) else wanted.voxels) > 0
        dice = max((2 * np.sum(m & truth) / max(1, m.sum() + truth.sum()) for m in masks), default=0.0)
        if dice < float(case.get("min_dice", 0.5)):
            raise CheckpointError(
                f"The golden question's mask has Dice {dice:.2f}, below what the checkpoint promises."
            )


def build(factory: str, checkpoint: str, device: str) -> PredictorLike:
    """Call `package.module:name.of.callable` with the checkpoint and the device."""
    module, _, path = factory.partition(":")
    made: Any = importlib.import_module(module)
    for name in path.split("."):
        made = getattr(made, name)
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    predictor: PredictorLike = made(checkpoint, device=device)
    return predictor
