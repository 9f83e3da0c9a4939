"""What the model's process expects of a predictor, how it makes one, and how it checks that it works."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from medsegr.errors import CheckpointError
from medsegr.imaging import Picture


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
    @property
    def outcome(self) -> str: ...


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

    A checkpoint without a golden question is asked about a plain grey picture, and its reply must have the right form.
    """
    if (checkpoint / "golden.json").is_file():
        from medsegr.golden import ask_golden, read_golden  # brings torch, which a stand-in may do without

        known = read_golden(checkpoint)
        reached = ask_golden(cast(Any, predictor), known) if known else 1.0
        if known and reached < known.min_dice:
            raise CheckpointError(
                f"The golden question's mask has Dice {reached:.2f}; {known.min_dice} is expected: copy the checkpoint anew."
            )
        return
    picture = Picture(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)), "CT", None)
    predictor.set_image(picture)
    reply = predictor.ask("Which organ stores bile?")
    masks = [np.asarray(found.mask) for found in reply.findings]
    if not isinstance(reply.text, str) or any(m.shape != (64, 64) or m.dtype != np.bool_ for m in masks):
        raise CheckpointError(
            "A plain question got a reply of the wrong form; the checkpoint does not fit this version."
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
