"""The state of a run between its steps: written whole or not at all, taken over only by the same model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import torch

from medsegr.errors import MedSegRError
from medsegr.model.medsegr import MedSegR


class Moment(Protocol):
    """How far a run is."""

    step: int
    seconds: float


def _fingerprint(model: MedSegR) -> str:
    """Changes with anything that a saved state cannot be carried over: shapes of the weights, targets, ids of the tokens."""
    shapes = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    vocabulary = sorted(model.context.tokenizer.get_vocab().items())
    return hashlib.sha256(repr((shapes, model.config.targets, vocabulary)).encode()).hexdigest()


def save_state(
    path: Path,
    model: MedSegR,
    optimizer: torch.optim.AdamW,
    clock: Moment,
    means: dict[str, float],
    level: dict[str, float],
) -> None:
    """Write what a run goes on from: weights, optimizer, clock, how well each set is learnt. Images and augmentation are drawn
    afresh. The file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_suffix(".tmp")
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": clock.step,
            "seconds": clock.seconds,
            "losses": means,
            "level": level,
            "fingerprint": _fingerprint(model),
        },
        work,
    )
    work.replace(path)


def resume(
    path: Path, model: MedSegR, optimizer: torch.optim.AdamW, clock: Moment
) -> tuple[dict[str, float], dict[str, float]]:
    """Take over a saved state, if there is one; returns the running means of its losses and how well each set was learnt.
    Raises `MedSegRError`."""
    if not path.is_file():
        return {}, {}
    state = torch.load(path, weights_only=True, map_location="cpu")
    if state.get("fingerprint", _fingerprint(model)) != _fingerprint(model):
        raise MedSegRError(
            f"{path.parent} holds a run with another model or other answers; remove it, or choose another --out."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    clock.step, clock.seconds = int(state["step"]), float(state["seconds"])
    losses, level = (state.get(key, {}) for key in ("losses", "level"))
    return {n: float(v) for n, v in losses.items()}, {n: float(v) for n, v in level.items()}
