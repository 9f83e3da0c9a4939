"""A procedural axial CT of the torso, portal venous phase, with exact masks of its organs.

Invented from ellipsoids: it resembles no patient and may go anywhere. The same seed gives the same body.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medsegr.imaging.types import Volume
from medsegr.phantom.anatomy import Anatomy
from medsegr.phantom.shapes import Field, Space, ripple

LABELS = MappingProxyType(
    {
        "right lung": 1,
        "left lung": 2,
        "heart and mediastinum": 3,
        "liver": 4,
        "spleen": 5,
        "right kidney": 6,
        "left kidney": 7,
        "gallbladder": 8,
        "stomach": 9,
        "aorta": 10,
        "spine": 11,
    }
)
"""Value of every organ in the label map."""

DEFAULT_SHAPE = (160, 160, 60)
DEFAULT_SPACING_MM = (2.2, 2.2, 5.0)
NOISE_HU = 11.0
PSF_MM = 1.0


@dataclass(frozen=True, eq=False)
class Torso:
    """A phantom: `volume` ([X, Y, Z] HU, X to the left, Y to the back, Z to the head) and its label map (uint8)."""

    volume: Volume
    labels: NDArray[np.uint8]
    seed: int

    @property
    def hu(self) -> NDArray[np.int16]:
        """The voxels as int16 HU [X, Y, Z]."""
        return self.volume.voxels.astype(np.int16)

    def mask(self, name: str) -> NDArray[np.bool_]:
        """[X, Y, Z] bool of the organ `name`, a key of `LABELS`."""
        return np.asarray(self.labels == LABELS[name], np.bool_)


def make_torso(
    seed: int = 0,
    shape: tuple[int, int, int] = DEFAULT_SHAPE,
    spacing_mm: tuple[float, float, float] = DEFAULT_SPACING_MM,
) -> Torso:
    """Build the phantom of `seed` on a grid of `shape` voxels; about 350 x 350 x 300 mm show all of it.

    Slices run from the lower poles of the kidneys to the middle of the chest. Organ masks are exact at the voxel
    centres; the image is then blurred (point spread function) and given noise, as a scanner would.
    """
    rng = np.random.default_rng(seed)
    space = Space.of(shape, spacing_mm, base_mm=0.0)
    canvas = _Canvas(np.full(shape, -1000, np.float32), np.zeros(shape, np.uint8))
    anatomy = Anatomy(space, rng)
    _paint_body(canvas, anatomy)
    _paint_chest(canvas, anatomy, rng)
    _paint_abdomen(canvas, anatomy, rng)
    _paint_spine(canvas, anatomy)
    blurred = ndimage.gaussian_filter(canvas.hu, [PSF_MM / step for step in spacing_mm])
    noise = ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), (0.6, 0.6, 0))
    blurred += noise * np.float32(NOISE_HU / noise.std())
    hu = np.rint(np.clip(blurred, -1024, 3071)).astype(np.float32)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:2, 3] = [-space.u.flat[0], -space.v.flat[0]]
    return Torso(Volume(hu, affine, "CT", "ABDOMEN"), canvas.labels, seed)


@dataclass(frozen=True, eq=False)
class _Canvas:
    """Image and label map under construction; later paint covers earlier paint in both."""

    hu: Field
    labels: NDArray[np.uint8]

    def paint(self, where: NDArray[np.bool_], hu: float | Field, name: str | None = None) -> None:
        where = np.broadcast_to(where, self.labels.shape)
        np.copyto(self.hu, np.asarray(hu, np.float32), where=where)
        self.labels[where] = LABELS[name] if name else 0


def _paint_body(canvas: _Canvas, a: Anatomy) -> None:
    canvas.paint(a.table, 180)
    canvas.paint(a.depth > 0, 15)  # skin
    canvas.paint(a.depth > 2.5, -105 + 6 * a.coarse)
    canvas.paint(a.wall, 52 + 8 * a.fine)
    canvas.paint(a.cavity, -98 + 7 * a.coarse)
    canvas.paint(a.back_muscles | a.psoas, 58 + 5 * a.fine)
    canvas.paint(a.ribs, 420)


def _paint_chest(canvas: _Canvas, a: Anatomy, rng: np.random.Generator) -> None:
    vessels = _tubes(a.space, rng, 36.0, 0.28)
    air = np.where(vessels, np.float32(-250), -855 + 22 * a.fine)
    canvas.paint(a.lungs & (a.space.u < a.midline), air, "right lung")
    canvas.paint(a.lungs & (a.space.u >= a.midline), air, "left lung")
    canvas.paint(a.diaphragm_muscle, 58)
    canvas.paint(
        a.mediastinum, np.where(a.great_vessels, np.float32(155), -65 + 25 * a.fine), "heart and mediastinum"
    )
    canvas.paint(a.heart, np.where(a.heart_chambers, np.float32(148), 112), "heart and mediastinum")
    canvas.paint(a.oesophagus, 42, "heart and mediastinum")


def _paint_abdomen(canvas: _Canvas, a: Anatomy, rng: np.random.Generator) -> None:
    a.paint_bowel(canvas.paint, rng)
    canvas.paint(a.spleen, 119 + 3 * a.fine, "spleen")
    canvas.paint(
        a.liver, np.where(_tubes(a.space, rng, 60.0, 0.16), np.float32(150), 108 + 3 * a.fine), "liver"
    )
    canvas.paint(a.stomach, 62, "stomach")
    canvas.paint(a.stomach_content, np.where(a.stomach_air, np.float32(-930), 24 + 8 * a.fine), "stomach")
    canvas.paint(a.gallbladder, 10, "gallbladder")
    canvas.paint(a.pancreas, 88 + 10 * a.fine)
    for side, (whole, medulla, sinus) in a.kidneys.items():
        canvas.paint(whole, 182, f"{side} kidney")
        canvas.paint(medulla, 152, f"{side} kidney")
        canvas.paint(sinus, -45)
    canvas.paint(a.vena_cava, 132)
    canvas.paint(a.aorta, 160, "aorta")


def _paint_spine(canvas: _Canvas, a: Anatomy) -> None:
    canvas.paint(a.vertebrae, 420, "spine")
    canvas.paint(a.marrow, 205 + 25 * a.fine, "spine")
    canvas.paint(a.discs, 88, "spine")
    canvas.paint(a.canal, 28)


def _tubes(space: Space, rng: np.random.Generator, wavelength_mm: float, width: float) -> NDArray[np.bool_]:
    """Where two ripples are both near zero: a net of thin curved tubes, like vessels."""
    first, second = (ripple(space, rng, wavelength_mm, 4) for _ in range(2))
    return np.asarray(first**2 + second**2 < width**2, np.bool_)
