"""Smooth implicit shapes on a grid of millimetres: negative inside, zero on the surface, about -1 at the centre.

Coordinates follow the patient as an axial CT shows him: u to his left, v to his back, w to his head, in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Space:
    """The grid [X, Y, Z] in patient millimetres; the three arrays broadcast to it."""

    u: Field
    v: Field
    w: Field

    @classmethod
    def of(cls, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], base_mm: float) -> Space:
        """A grid centred on the body's axis in u and v, with its lowest slice at `base_mm`."""
        u, v = (
            (np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape[:2], spacing_mm[:2], strict=True)
        )
        w = base_mm + np.arange(shape[2]) * spacing_mm[2]
        u32, v32, w32 = (axis.astype(np.float32) for axis in (u, v, w))
        return cls(u32[:, None, None], v32[None, :, None], w32[None, None, :])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z)."""
        return self.u.size, self.v.size, self.w.size


def ellipsoid(
    space: Space, centre: Point, radii: Point, turn_deg: float = 0.0, tilt_deg: float = 0.0
) -> Field:
    """An ellipsoid, turned in the axial plane (u towards v) after leaning along w (v grows by tan(tilt) per mm)."""
    w = space.w - centre[2]
    lean = np.float32(np.tan(np.deg2rad(tilt_deg)))
    u, v = space.u - centre[0], space.v - centre[1] - lean * w
    c, s = np.float32(np.cos(np.deg2rad(turn_deg))), np.float32(np.sin(np.deg2rad(turn_deg)))
    along, across = (c * u + s * v) / radii[0], (c * v - s * u) / radii[1]
    return np.asarray(np.sqrt(along**2 + across**2 + (w / radii[2]) ** 2) - 1, np.float32)


def column(space: Space, path: tuple[Field | float, Field | float], radii: tuple[float, float]) -> Field:
    """An elliptic column along w; its centre (u, v) may vary with w."""
    return np.asarray(
        np.sqrt(((space.u - path[0]) / radii[0]) ** 2 + ((space.v - path[1]) / radii[1]) ** 2) - 1, np.float32
    )


def chain(space: Space, points: Sequence[tuple[float, float, float, float]], steps: int = 5) -> Field:
    """A tube through `points` (u, v, w, radius), as the union of spheres between them."""
    shape = np.full(space.shape, np.inf, np.float32)
    for start, end in zip(points[:-1], points[1:], strict=True):
        for t in np.linspace(0.0, 1.0, steps):
            u, v, w, radius = (float(a + t * (b - a)) for a, b in zip(start, end, strict=True))
            np.minimum(shape, ellipsoid(space, (u, v, w), (radius, radius, radius)), out=shape)
    return shape


def union(one: Field, other: Field, blend: float = 0.0) -> Field:
    """Union of two shapes, rounded over `blend` where they meet (polynomial smooth minimum)."""
    if blend <= 0:
        return np.minimum(one, other)
    h = np.clip(0.5 + 0.5 * (other - one) / blend, 0, 1)
    return np.asarray(other + (one - other) * h - blend * h * (1 - h), np.float32)


def ripple(space: Space, rng: np.random.Generator, wavelength_mm: float, waves: int = 5) -> Field:
    """A smooth random field of unit variance: plane waves of about `wavelength_mm` in random directions."""
    total = np.zeros(space.shape, np.float32)
    for _ in range(waves):
        direction = rng.normal(size=3)
        k = 2 * np.pi / (wavelength_mm * rng.uniform(0.75, 1.33)) * direction / np.linalg.norm(direction)
        ku, kv, kw = (np.float32(component) for component in k)
        total += np.cos(ku * space.u + kv * space.v + kw * space.w + np.float32(rng.uniform(0, 2 * np.pi)))
    return np.asarray(total * np.sqrt(2.0 / waves), np.float32)
