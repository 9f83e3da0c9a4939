"""The torso phantom's frame: skin, fat, muscles, bones and diaphragm, in mm, jittered by the seed.

u grows to the patient's left, v to his back, w to his head; w = 0 is at the fourth lumbar vertebra.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medsegr.phantom.shapes import Field, Space, column, ripple

Mask = NDArray[np.bool_]
POWER = 2.35
"""Exponent of the body's superellipse: 2 is an ellipse, more is squarer."""
VERTEBRA_MM = 34.0


class Body:
    """Masks [X, Y, Z] of everything that holds the organs; they overlap, the painter's order decides (see `torso`)."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self.space = space
        self._rng = np.random.default_rng(rng.integers(2**63))
        self.fine = ripple(space, self._rng, 16.0)
        self.coarse = ripple(space, self._rng, 90.0)
        self._wobble = [ripple(space, self._rng, wavelength) for wavelength in (110.0, 75.0, 50.0)]
        self.half_width, self.half_depth = 158 * self._factor(0.04), 106 * self._factor(0.05)
        self.fat = 13 * self._factor(0.3)
        self.midline = 2.0

    def _factor(self, spread: float) -> float:
        return float(1 + spread * np.clip(self._rng.normal(), -2, 2))

    @cached_property
    def depth(self) -> Field:
        """Distance below the skin along the ray to the body's axis, in mm; negative outside."""
        s = self.space
        narrow = 1 - 0.05 * np.clip((s.w - 180) / 120, 0, 1) ** 2
        flank = 1 - 0.03 * np.clip((120 - s.w) / 120, 0, 1)
        a, b = self.half_width * narrow * flank, self.half_depth * narrow
        rho = ((np.abs(s.u) / a) ** POWER + (np.abs(s.v) / b) ** POWER) ** (1 / POWER)
        radius = np.sqrt(s.u**2 + s.v**2)
        return np.asarray(radius * (1 / np.maximum(rho, 1e-3) - 1) + 1.2 * self._wobble[0], np.float32)

    @cached_property
    def _fat(self) -> Field:
        """Thickness of the fat under the skin: thicker on the belly and the back, thin over the ribs."""
        s = self.space
        low = np.clip((190 - s.w) / 100, 0, 1)
        ends = (np.abs(s.v) / self.half_depth) ** 2
        return np.asarray(self.fat * (0.55 + 0.45 * low + 0.45 * ends * low), np.float32)

    @cached_property
    def wall(self) -> Mask:
        """Muscles of the chest and belly wall, and everything inside them."""
        return np.asarray(self.depth > self._fat, np.bool_)

    @cached_property
    def inner(self) -> Field:
        """Depth below the inner face of the wall, mm."""
        return np.asarray(self.depth - self._fat - 12, np.float32)

    @cached_property
    def back_muscles(self) -> Mask:
        """The erectors of the spine, behind the ribs."""
        s = self.space
        side = np.abs(s.u)
        shape = np.sqrt(((side - 31) / 29) ** 2 + ((s.v - 79) / 18) ** 2) - 1 + 0.06 * self._wobble[2]
        return np.asarray((shape < 0) & (self.depth > 8), np.bool_)

    @cached_property
    def psoas(self) -> Mask:
        """Psoas on both sides of the lumbar spine, thinner upwards."""
        s = self.space
        size = np.clip(1.15 - s.w / 190, 0.05, 1)
        shape = np.sqrt(((np.abs(s.u) - 37) / (19 * size)) ** 2 + ((s.v - 48) / (19 * size)) ** 2)
        return np.asarray((shape < 1) & (s.w < 150), np.bool_)

    @cached_property
    def cavity(self) -> Mask:
        """Inside of the wall, without the muscles of the back."""
        return np.asarray((self.inner > 0) & ~self.back_muscles, np.bool_)

    @cached_property
    def ribs(self) -> Mask:
        """Obliquely descending ribs in the wall of the chest, the costal arch as their lower end, and the breastbone."""
        s = self.space
        forward = (1 - s.v / self.half_depth) / 2
        phase = np.mod(s.w + 75 * forward + 6 * self._wobble[0] + np.where(s.u > 0, 4, 0), 29.0)
        shell = np.abs(self.inner + 4.5) < 3.6
        ribs = shell & (np.abs(phase - 14.5) < 5.5) & (s.w > 105 + 95 * forward) & (forward < 0.9)
        sternum = (np.abs(self.inner + 5.5) < 5) & (np.abs(s.u) < 17) & (s.v < -40) & (s.w > 215)
        return np.asarray(ribs & ~self.back_muscles | sternum, np.bool_)

    @cached_property
    def dome(self) -> Field:
        """Height w of the diaphragm at (u, v), higher on the right, breathing ripples included."""
        s = self.space
        right = 226 - 62 * ((s.u + 60) / 78) ** 2 - 58 * ((s.v + 12) / 82) ** 2
        left = 213 - 62 * ((s.u - 64) / 76) ** 2 - 58 * ((s.v + 8) / 82) ** 2
        return np.asarray(np.maximum(right, left) + 4 * self._wobble[0], np.float32)

    @cached_property
    def diaphragm_muscle(self) -> Mask:
        """A thin sheet between chest and belly."""
        return np.asarray(self.cavity & (np.abs(self.space.w - self.dome) < 2.2), np.bool_)

    @cached_property
    def _level(self) -> Field:
        """Height above the middle of the nearest vertebra, mm."""
        return np.asarray(np.mod(self.space.w + 7, VERTEBRA_MM) - VERTEBRA_MM / 2, np.float32)

    @cached_property
    def _vertebral_body(self) -> Field:
        waist = 1 - 0.08 * np.cos(self._level / VERTEBRA_MM * 2 * np.pi)
        s = self.space
        return np.asarray(
            np.sqrt((s.u / (23 * waist)) ** 2 + ((s.v - 48) / (17.5 * waist)) ** 2) - 1, np.float32
        )

    @cached_property
    def vertebrae(self) -> Mask:
        """Bodies with discs, arches, transverse and spinous processes."""
        s = self.space
        arch = (np.abs(column(self.space, (0.0, 70.0), (14, 12))) < 0.28) & (np.abs(self._level) < 13)
        spinous = (np.abs(s.u) < 3.6) & (s.v > 80) & (s.v < 98) & (np.abs(self._level + 5) < 9)
        reach = np.abs(s.v - 72 - 0.12 * np.abs(s.u)) < 4
        transverse = reach & (np.abs(s.u) > 12) & (np.abs(s.u) < 38) & (np.abs(self._level - 3) < 6)
        return np.asarray((self._vertebral_body < 0) | arch | spinous | transverse, np.bool_)

    @cached_property
    def marrow(self) -> Mask:
        """Spongy bone inside the vertebral bodies."""
        return np.asarray(self._vertebral_body < -0.13, np.bool_)

    @cached_property
    def discs(self) -> Mask:
        """Discs between the vertebral bodies."""
        return np.asarray((self._vertebral_body < 0) & (np.abs(self._level) > VERTEBRA_MM / 2 - 4), np.bool_)

    @cached_property
    def canal(self) -> Mask:
        """The spinal canal (not part of the spine's mask)."""
        return np.asarray(column(self.space, (0.0, 70.0), (10.5, 8.5)) < 0, np.bool_)

    @cached_property
    def table(self) -> Mask:
        """A thin curved shell under the patient."""
        sag = 128 - 26 * (self.space.u / 170) ** 2
        return np.asarray(np.broadcast_to(np.abs(self.space.v - sag) < 1.8, self.space.shape), np.bool_)
