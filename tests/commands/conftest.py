"""A predictor that answers without weights: it outlines what is bright."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medsegr import predictor as predictor_module
from medsegr.imaging import Picture, Volume
from medsegr.predictor import Finding, Reply


class BrightSpots:
    """Stands in for `Predictor`: finds the "bright spot" (> 128) unless the question asks for a unicorn."""

    version, licence, targets = "test-1", "CC0", ("bright spot",)

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[tuple[str, str], ...]]] = []
        self.slices: range | None = None
        self.pixels: NDArray[Any] = np.zeros((0, 0))

    def set_image(self, image: Any, modality: str | None = None) -> None:
        pixels = image.pixels if isinstance(image, Picture) else np.asarray(image)
        self.pixels = pixels if pixels.ndim == 2 else pixels[..., 0]

    def ask(self, question: str, history: Sequence[tuple[str, str]] = (), **_: Any) -> Reply:
        return self._reply(self.pixels > 128, question, history)

    def ask_volume(
        self,
        volume: Volume,
        question: str,
        history: Sequence[tuple[str, str]] = (),
        *,
        slices: range | None = None,
        **_: Any,
    ) -> Reply:
        self.slices = slices
        return self._reply(volume.voxels > 128, question, history)

    def _reply(self, mask: NDArray[np.bool_], question: str, history: Sequence[tuple[str, str]]) -> Reply:
        self.asked.append((question, tuple(history)))
        if "unicorn" in question:
            return Reply("There is no unicorn in this image.", (), {"total_ms": 1.0})
        found = Finding("bright spot", "bright spot", mask, 0.83)
        return Reply("The bright spot is outlined.", (found,), {"total_ms": 1234.0})


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> BrightSpots:
    """The stand-in, given out by `Predictor.from_pretrained`."""
    stand_in = BrightSpots()

    class Given:
        @staticmethod
        def from_pretrained(name_or_dir: str | Path = "embedded", device: str = "cpu") -> BrightSpots:
            return stand_in

    monkeypatch.setattr(predictor_module, "Predictor", Given)
    return stand_in


@pytest.fixture
def spot_png(tmp_path: Path) -> Path:
    """A grey picture, 20 rows by 30 columns, with a bright 4 x 5 rectangle at row 2, column 3."""
    pixels = np.full((20, 30), 40, np.uint8)
    pixels[2:6, 3:8] = 200
    path = tmp_path / "spot.png"
    Image.fromarray(pixels).save(path)
    return path
