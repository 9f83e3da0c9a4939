"""What is asked about and corrected: labelled pictures of a stream, or slices of phantoms where no data are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from learning.streams import Mask, Pixels, read_stream
from PIL import Image

from medsegr.imaging import Picture, to_rgb
from medsegr.phantom import LABELS, make_torso

SHAPE, SPACING_MM = (96, 96, 24), (3.6, 3.6, 12.0)
"""Of a phantom that is made within a second and shows all of the torso."""
PER_TORSO = 6


@dataclass(frozen=True, eq=False)
class Labelled:
    """A picture, `pixels` [H, W, 3] uint8, and the truth, structure -> [H, W] bool; only structures that are seen."""

    name: str
    pixels: Pixels
    masks: Mapping[str, Mask]

    def picture(self) -> Picture:
        """The grid that masks are written on."""
        return Picture(self.pixels, None, None)


def of_stream(folder: Path, count: int, seed: int) -> list[Labelled]:
    """Pictures of the train split of a labelled set; raises `MedSegRError`."""
    items = read_stream(folder, count, seed).items
    return [
        Labelled(item.name, item.pixels(), {k: m for k, m in item.masks().items() if m.any()})
        for item in items
    ]


def of_phantoms(count: int, seed: int) -> list[Labelled]:
    """Axial slices of procedural bodies, each body of another seed."""
    found: list[Labelled] = []
    for body in range(-(-count // PER_TORSO)):
        torso = make_torso(seed * 1000 + body, SHAPE, SPACING_MM)
        volume = torso.volume
        for k in np.linspace(3, volume.n_slices - 4, PER_TORSO).astype(int).tolist():
            masks = {name: volume.slice_from_volume(k, torso.mask(name)) for name in LABELS}
            pixels = to_rgb(volume.slice_pixels(k), "CT")
            seen = {name: np.asarray(mask, np.bool_) for name, mask in masks.items() if mask.any()}
            found.append(Labelled(f"torso{body}_{k:02d}", pixels, seen))
    return found[:count]


def write(images: Sequence[Labelled], folder: Path) -> None:
    """The folder of PNG files that the server is started on; a picture's id is its name."""
    folder.mkdir(parents=True)
    for image in images:
        Image.fromarray(image.pixels).save(folder / f"{image.name}.png")
