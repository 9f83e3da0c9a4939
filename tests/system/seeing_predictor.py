"""A predictor whose masks are grey values: where an organ is follows from the image file alone, so a test knows
every pixel without asking the code under test how it orders or turns slices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.web.fake_predictor import FakePredictor, FakeReply

RANGES = {"spleen": (100, 150), "liver": (150, 256), "gallbladder": (200, 256), "kidney": (50, 100)}
"""Grey values [low, high) of each organ; the gallbladder lies within the liver, so their masks overlap."""


def seen(values: Any, label: str) -> Any:
    """Bool mask of `label` in an image [...]; of a colour image [..., 3] in its red channel."""
    low, high = RANGES[label]
    return (values >= low) & (values < high)


def make(checkpoint: str, device: str = "cpu") -> SeeingPredictor:
    """The factory that tests name by its import path."""
    return SeeingPredictor()


class SeeingPredictor(FakePredictor):
    """Understands the words of `FakePredictor`, and marks the grey values of what it names."""

    version = "seeing-1"

    def set_image(self, image: Any, modality: str | None = None) -> None:
        super().set_image(image, modality)
        self._values = image.pixels if image.pixels.ndim == 2 else image.pixels[..., 0]

    def ask_volume(self, volume: Any, question: str, history: Any = (), **options: Any) -> FakeReply:
        self._values = volume.voxels if volume.voxels.ndim == 3 else volume.voxels[..., 0]
        return super().ask_volume(volume, question, history, **options)

    def _reply(self, shape: Any, question: str, history: Any, **options: Any) -> FakeReply:
        reply = super()._reply(shape, question, history, **options)
        found = tuple(replace(f, mask=np.array(seen(self._values, f.label))) for f in reply.findings)
        return replace(reply, findings=found)
