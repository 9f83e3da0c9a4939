"""From a reply's overlapping masks to the one label map that stock clients get, on the image's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegr.imaging import Picture, Volume, write_label_map
from medsegr.imaging.dicom_series import Stack
from medsegr.web.errors import Refusal

SAME_PLACE_MM = 0.01


@dataclass(frozen=True)
class Geometry:
    """The grid of an image without its pixels. `affine` for volumes, `spacing_mm` (row, column) for pictures
    that know it.
    """

    shape: tuple[int, ...]
    affine: tuple[tuple[float, ...], ...] | None = None
    spacing_mm: tuple[float, float] | None = None

    @classmethod
    def of(cls, image: Picture | Volume) -> Geometry:
        """The grid of `image`."""
        if isinstance(image, Picture):
            return cls(tuple(image.pixels.shape[:2]), spacing_mm=image.spacing_mm)
        affine = np.asarray(image.affine, dtype=float)
        return cls(
            tuple(image.voxels.shape[:3]), affine=tuple(tuple(float(v) for v in row) for row in affine)
        )

    @classmethod
    def of_stack(cls, stack: Stack) -> Geometry:
        """The grid of a stack of a DICOM series, from its headers."""
        rows = None if stack.affine is None else tuple(tuple(float(v) for v in row) for row in stack.affine)
        return cls(tuple(stack.shape), rows, None if rows else stack.spacing_mm)

    def fits(self, other: Geometry) -> bool:
        """Whether both are one grid, as far as both know where they lie (to a hundredth of a millimetre)."""
        placed = self.affine is not None and other.affine is not None
        same_place = not placed or np.allclose(
            np.asarray(self.affine), np.asarray(other.affine), rtol=0, atol=SAME_PLACE_MM
        )
        return self.shape == other.shape and same_place

    @property
    def is_volume(self) -> bool:
        """Whether masks are [X, Y, Z] rather than [H, W]."""
        return self.affine is not None

    def reference(self) -> Picture | Volume:
        """An empty image on this grid that takes no memory."""
        zeros = np.broadcast_to(np.uint8(0), self.shape)
        if self.affine is not None:
            return Volume(zeros, np.asarray(self.affine, dtype=float), None)
        return Picture(zeros, None, self.spacing_mm)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "shape": list(self.shape),
            "affine": self.affine and [list(r) for r in self.affine],
            "spacing_mm": self.spacing_mm,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Geometry:
        """The inverse of `to_json`."""
        affine, spacing = data["affine"], data["spacing_mm"]
        return cls(
            tuple(int(side) for side in data["shape"]),
            affine=tuple(tuple(float(v) for v in row) for row in affine) if affine else None,
            spacing_mm=(float(spacing[0]), float(spacing[1])) if spacing else None,
        )


def unpack(packed: bytes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The inverse of `numpy.packbits` for a bool array of `shape`."""
    flat = np.unpackbits(np.frombuffer(packed, np.uint8), count=int(np.prod(shape)))
    return flat.view(np.bool_).reshape(shape)


def flatten(
    masks: Sequence[NDArray[np.bool_]], values: Sequence[int | None], shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """One label map [shape] uint8: a smaller finding lies over a larger one, the later over the earlier of
    equal size.

    `values[i]` is the label of `masks[i]`; None leaves the finding out. No findings give an empty map.
    """
    labels = np.zeros(shape, np.uint8)
    sizes = [int(np.count_nonzero(mask)) for mask in masks]
    for i in sorted(range(len(masks)), key=lambda i: -sizes[i]):
        value = values[i]
        if value is not None:
            np.copyto(labels, np.uint8(value), where=masks[i])
    return labels


def fixed_values(labels: Sequence[str], targets: Sequence[str]) -> list[int | None]:
    """Ids of `/info`'s labels (position + 1) for findings named `labels`; None for a name that is not among
    them.
    """
    ids = {name.casefold(): n for n, name in enumerate(targets, start=1)}
    return [ids.get(label.casefold()) for label in labels]


def label_names(labels: Sequence[str]) -> dict[str, int]:
    """Name -> 1..N in order; a repeated name gets a number, for clients that key segments by name."""
    names: dict[str, int] = {}
    for value, label in enumerate(labels, start=1):
        name, n = label, 1
        while name in names:
            n += 1
            name = f"{label} ({n})"
        names[name] = value
    return names


def extension_for(asked: str | None, image: Path, geometry: Geometry) -> str:
    """File type of a label map: as asked, else the image's own where it can hold labels. Raises `Refusal`
    422.
    """
    if asked == ".png" and geometry.is_volume:
        raise Refusal(422, "A PNG cannot hold the mask of a volume; ask for .nrrd or .nii.gz.")
    if asked:
        return asked
    name = image.name.lower()
    if not geometry.is_volume:
        return ".nrrd" if name.endswith((".nrrd", ".dcm")) else ".png"
    return ".nrrd" if name.endswith(".nrrd") else ".nii" if name.endswith(".nii") else ".nii.gz"


def write(path: Path, labels: NDArray[np.uint8], geometry: Geometry, source: Path | None = None) -> None:
    """Write a label map on the grid of `geometry`; `source` is the image's file while it exists."""
    write_label_map(path, labels, geometry.reference(), source if source and source.exists() else None)
