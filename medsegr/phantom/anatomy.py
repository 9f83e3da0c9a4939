"""Where the organs of the torso phantom lie: positions and sizes in mm, jittered by the seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from medsegr.phantom.body import Body, Mask
from medsegr.phantom.shapes import Field, Point, Space, chain, column, ellipsoid, union


class Anatomy(Body):
    """Masks [X, Y, Z] of the organs of one body; they overlap, the painter's order decides (see `torso`)."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self._shift = {
            name: self._rng.normal(scale=3.0, size=3) for name in ("heart", "liver", "spleen", "stomach")
        }
        self._size = {
            "liver": self._factor(0.05),
            "spleen": self._factor(0.08),
            "gallbladder": self._factor(0.12),
        }
        self._kidney_w = {"right": 86 + self._rng.normal(scale=5), "left": 100 + self._rng.normal(scale=5)}

    def _at(self, name: str, u: float, v: float, w: float) -> Point:
        du, dv, dw = (float(d) for d in self._shift[name])
        return u + du, v + dv, w + dw

    @cached_property
    def lungs(self) -> Mask:
        """Both lungs, before heart, mediastinum and spine are painted over them."""
        s = self.space
        between = (np.abs(s.u) < 15) & (s.v > 35) | (np.abs(s.u - 3) < 26) & (s.w < 214)
        return np.asarray(self.cavity & (s.w > self.dome) & (self.inner > 2) & ~between, np.bool_)

    def _chest(self, shape: Field) -> Mask:
        return np.asarray((shape < 0) & (self.inner > 1) & (self.space.w > self.dome - 3), np.bool_)

    @cached_property
    def mediastinum(self) -> Mask:
        """The space between the lungs in front of the spine."""
        s = self.space
        width = 21 + 8 * np.clip((s.w - 255) / 40, 0, 1)
        shape = np.sqrt(((s.u - 3) / width) ** 2 + ((s.v + 8) / 62) ** 2) - 1 + 0.1 * self._wobble[1]
        return self._chest(np.asarray(shape, np.float32))

    @cached_property
    def great_vessels(self) -> Mask:
        """Ascending aorta, pulmonary trunk and upper vena cava above the heart."""
        vessels = [
            column(self.space, (u, v), (r, r)) for u, v, r in ((-10, -28, 14), (16, -36, 13), (-27, -14, 9))
        ]
        return np.asarray((np.min(vessels, axis=0) < 0) & (self.space.w > 262), np.bool_)

    def _heart(self, scale: float) -> Field:
        size = (62 * scale, 45 * scale, 50 * scale)
        return ellipsoid(self.space, self._at("heart", 20, -28, 236), size, turn_deg=-32, tilt_deg=-8)

    @cached_property
    def heart(self) -> Mask:
        """The heart, apex to the left and front."""
        return self._chest(self._heart(1.0) + 0.05 * self._wobble[1])

    @cached_property
    def heart_chambers(self) -> Mask:
        """Blood inside the heart: everything but its outer muscle and the septum."""
        septum = np.abs(self.space.u - 0.55 * self.space.v - 45) < 5
        return np.asarray((self._heart(0.82) + 0.06 * self._wobble[2] < 0) & ~septum, np.bool_)

    @cached_property
    def oesophagus(self) -> Mask:
        """A flat tube in front of the spine."""
        return np.asarray(
            (column(self.space, (4.0, 16.0), (9, 6)) < 0) & (self.space.w > self.dome + 2), np.bool_
        )

    def _belly(self, shape: Field, gap: float = 1.5) -> Mask:
        below = self.space.w < self.dome - 1
        return np.asarray((shape < 0) & below & (self.inner > gap) & ~self.back_muscles, np.bool_)

    @cached_property
    def liver(self) -> Mask:
        """Right lobe under the right dome, left lobe across the midline; hollowed by the kidney's bed."""
        k = self._size["liver"]
        right = ellipsoid(self.space, self._at("liver", -82, 0, 168), (70 * k, 88 * k, 88 * k), turn_deg=12)
        left = ellipsoid(self.space, self._at("liver", -8, -46, 165), (80 * k, 36, 50), turn_deg=8)
        whole = union(right, left, 0.25) + 0.06 * self._wobble[1]
        bed = union(self._kidney("right", 1.12), ellipsoid(self.space, (-44, 66, 96), (52, 46, 64)))
        return np.asarray(self._belly(whole) & (bed > 0) & ~self._prevertebral, np.bool_)

    @cached_property
    def _prevertebral(self) -> Mask:
        """Room of the great vessels and the crura before the spine, kept free of liver and stomach."""
        return np.asarray(column(self.space, (2.0, 34.0), (34, 32)) < 0, np.bool_)

    @cached_property
    def spleen(self) -> Mask:
        """At the left back, under the left dome, behind the stomach."""
        k = self._size["spleen"]
        at = self._at("spleen", 94, 42, 172)
        shape = ellipsoid(self.space, at, (34 * k, 54 * k, 54 * k), turn_deg=18) + 0.07 * self._wobble[1]
        return np.asarray(self._belly(shape) & (self._kidney("left", 1.12) > 0), np.bool_)

    @cached_property
    def _stomach(self) -> Field:
        s = self._shift["stomach"]
        points = (
            (58, -6, 186, 31),
            (62, -32, 166, 29),
            (50, -46, 136, 24),
            (14, -48, 112, 18),
            (-20, -42, 108, 13),
        )
        moved = [(u + s[0], v + s[1], w + s[2], r) for u, v, w, r in points]
        return chain(self.space, moved) + np.float32(0.05) * self._wobble[2]

    @cached_property
    def stomach(self) -> Mask:
        """From the fundus at the left back to the pylorus right of the midline."""
        return np.asarray(self._belly(self._stomach, 3) & ~self._prevertebral, np.bool_)

    @cached_property
    def stomach_content(self) -> Mask:
        """Inside of the stomach's wall."""
        return np.asarray(self.stomach & (self._stomach < -0.14) & (self.inner > 6), np.bool_)

    @cached_property
    def stomach_air(self) -> Mask:
        """Air rises to the front of a patient on his back."""
        return np.asarray(self.space.v < -52, np.bool_)

    @cached_property
    def gallbladder(self) -> Mask:
        """Under the liver, in front."""
        k = self._size["gallbladder"]
        u, v, w = self._at("liver", -46, -44, 116)
        return self._belly(ellipsoid(self.space, (u, v, w), (15 * k, 20 * k, 27 * k), 25, -14), 4)

    @cached_property
    def pancreas(self) -> Mask:
        """A bent band before the great vessels (not a target)."""
        band = chain(
            self.space, ((-28, -12, 118, 13), (0, -14, 128, 9), (36, 2, 140, 9), (66, 22, 148, 9)), 6
        )
        return self._belly(band + np.float32(0.12) * self._wobble[2])

    def _kidney(self, side: str, scale: float) -> Field:
        sign = -1 if side == "right" else 1
        size = (27 * scale, 31 * scale, 55 * scale)
        return ellipsoid(
            self.space, (sign * 66, 42, self._kidney_w[side]), size, turn_deg=sign * -35, tilt_deg=-9
        )

    @cached_property
    def kidneys(self) -> dict[str, tuple[Mask, Mask, Mask]]:
        """Per side: the whole kidney with its sinus, the medulla, and the fat of the sinus (not kidney)."""
        found = {}
        for side, sign in (("right", -1), ("left", 1)):
            outer = self._kidney(side, 1.0)
            at = (sign * 50.0, 36.0, self._kidney_w[side])
            sinus = ellipsoid(self.space, at, (19, 9, 24), turn_deg=sign * 25) + 0.15 * self._wobble[2]
            whole = self._belly(outer + 0.03 * self._wobble[2], 0)
            medulla = whole & (outer < -0.3) & (self.fine > -0.1)
            found[side] = (whole, np.asarray(medulla, np.bool_), np.asarray(whole & (sinus < 0), np.bool_))
        return found

    @cached_property
    def _rise(self) -> Field:
        """0 in the belly, 1 in the chest, smoothly: the descending aorta moves left and back as it is followed up."""
        t = np.clip((self.space.w - 130) / 110, 0, 1)
        return np.asarray(t * t * (3 - 2 * t), np.float32)

    @cached_property
    def aorta(self) -> Mask:
        """The descending aorta, in front of the spine and slightly left."""
        radius = 10.5 + 2.5 * self._rise
        shape = np.sqrt(
            (self.space.u - 10 - 10 * self._rise) ** 2 + (self.space.v - 19 - 14 * self._rise) ** 2
        )
        return np.asarray(shape < radius, np.bool_)

    @cached_property
    def vena_cava(self) -> Mask:
        """The lower vena cava, right of the aorta, up to the diaphragm (not a target)."""
        shape = column(self.space, (-20.0 - 4 * self._rise, 19.0 - 14 * self._rise), (12, 9.5))
        return np.asarray((shape < 0) & (self.space.w < self.dome), np.bool_)

    def paint_bowel(self, paint: Callable[[Mask, Any], None], rng: np.random.Generator) -> None:
        """Loops of bowel in the lower belly and the colon at both flanks: none is a target."""
        for sign, top in ((-1, 95), (1, 150)):
            path = (sign * 98 + 6 * np.sin(self.space.w / 17), 4.0 + 14 * (sign > 0))
            colon = column(self.space, path, (19, 21)) + 0.12 * self._wobble[2]
            inside = self._belly(colon, 2) & (self.space.w < top)
            paint(inside, 55)
            paint(inside & (colon < -0.2), np.where(self.fine > 0.3, np.float32(-750), 10 + 25 * self.fine))
        for _ in range(34):
            centre = (rng.uniform(-62, 78), rng.uniform(-62, 2), rng.uniform(-10, 118))
            radii = (rng.uniform(11, 22), rng.uniform(10, 15), rng.uniform(11, 20))
            loop = (
                ellipsoid(self.space, centre, radii, rng.uniform(0, 180)) + np.float32(0.1) * self._wobble[2]
            )
            paint(self._belly(loop, 4), 68)
            content = rng.choice([28.0, 35.0, 230.0, -800.0], p=[0.4, 0.35, 0.15, 0.1])
            paint(self._belly(loop + np.float32(0.28), 4), content)
