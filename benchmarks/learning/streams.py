"""Streams of labelled images that a simulated clinician works through, and the images that learning is measured on.

A stream is a folder with `dataset.json`, `images/` and `masks/`. Its train split is corrected, its val split measured: patients
of one are never in the other, and nobody who learns sees the latter.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medsegr.errors import MedSegRError
from medsegr.imaging import Picture

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Shift:
    """Another scanner: the same blur (pixels), contrast (1 is none) and noise (grey levels) on every image."""

    blur: float = 2.0
    contrast: float = 0.4
    noise: float = 20.0

    def apply(self, pixels: Pixels, name: str) -> Pixels:
        """[H, W, 3] uint8 as this scanner shows it. Each image `name` has noise of its own, always the same; a grey image stays
        grey."""
        values = ndimage.gaussian_filter(pixels.astype(np.float32), (self.blur, self.blur, 0))
        mean = values.mean()
        values = (values - mean) * self.contrast + mean
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        noise = np.random.default_rng(seed).normal(0.0, self.noise, (*pixels.shape[:2], 1))
        seen: Pixels = np.clip(np.rint(values + noise), 0, 255).astype(np.uint8)
        return seen


@dataclass(frozen=True)
class Item:
    """One labelled image. `targets`: structure -> the values of the label map that make it up."""

    name: str
    patient: str
    image: Path
    labels: Path
    modality: str
    targets: Mapping[str, tuple[int, ...]]
    shift: Shift | None = None

    def pixels(self) -> Pixels:
        """[H, W, 3] uint8, as the scanner shows it."""
        with Image.open(self.image) as opened:
            plain = np.asarray(opened.convert("RGB"))
        return self.shift.apply(plain, self.name) if self.shift else plain

    def picture(self) -> Picture:
        """What a predictor is asked about."""
        return Picture(self.pixels(), self.modality, None)

    def masks(self) -> dict[str, Mask]:
        """Structure -> [H, W] bool, empty ones as well."""
        with Image.open(self.labels) as opened:
            values = np.asarray(opened)
        return {name: np.isin(values, taken) for name, taken in self.targets.items()}

    @cached_property
    def present(self) -> tuple[str, ...]:
        """The structures that are seen here."""
        return tuple(name for name, mask in self.masks().items() if mask.any())


@dataclass(frozen=True)
class Stream:
    """`items` are corrected in this order, `measured` never shown to whoever learns."""

    name: str
    modality: str
    targets: tuple[str, ...]
    items: tuple[Item, ...]
    measured: tuple[Item, ...]


def read_stream(
    folder: Path,
    images: int,
    seed: int,
    targets: Sequence[str] = (),
    shift: Shift | None = None,
    measured: int = 0,
) -> Stream:
    """The stream of a folder: `images` of the train split in an order that `seed` decides, and the val split (at most `measured`
    images evenly taken, 0: all). `targets` limits the structures. Raises `MedSegRError`."""
    data = read_dataset(folder)
    known = {str(k): tuple(int(v) for v in values) for k, values in data["targets"].items()}
    if unknown := sorted(set(targets) - set(known)):
        raise MedSegRError(f"{folder.name} has no target {unknown[0]}; it has {', '.join(known)}.")
    wanted = {name: known[name] for name in (targets or known)}
    items = {
        split: [replace(item, targets=wanted, shift=shift) for item in items_of(folder, data, split)]
        for split in ("train", "val")
    }
    shared = {i.patient for i in items["train"]} & {i.patient for i in items["val"]}
    if shared:
        raise MedSegRError(
            f"{len(shared)} patients of {folder.name} are in train and in val; each is expected in one."
        )
    order = random.Random(seed).sample(items["train"], len(items["train"]))
    shown = [item for item in order if item.present][:images]
    if not shown or not items["val"]:
        raise MedSegRError(f"{folder.name} has no train or no val image with one of {', '.join(wanted)}.")
    return Stream(
        folder.name,
        str(data["modality"]),
        tuple(wanted),
        tuple(shown),
        tuple(evenly(items["val"], measured or len(items["val"]))),
    )


def read_dataset(folder: Path) -> dict[str, Any]:
    """`dataset.json` of a set; raises `MedSegRError`."""
    try:
        data: dict[str, Any] = json.loads((folder / "dataset.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise MedSegRError(
            f"{folder} has no dataset.json that can be read; a labelled set is expected."
        ) from error
    return data


def items_of(folder: Path, data: Mapping[str, Any], split: str) -> Iterator[Item]:
    """The images of one split in the order of their names."""
    targets = {str(k): tuple(int(v) for v in values) for k, values in data["targets"].items()}
    files = {path.stem: path for path in sorted((folder / "images").iterdir())}
    for name, about in sorted(data["images"].items()):
        if about["split"] == split and name in files:
            labels = folder / "masks" / f"{name}.png"
            yield Item(name, str(about["patient_id"]), files[name], labels, str(data["modality"]), targets)


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items, evenly spaced."""
    if count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
