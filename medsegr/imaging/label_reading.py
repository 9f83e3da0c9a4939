"""`read_label_map`: a mask or label map that somebody sent, on exactly the grid of the image it belongs to.

The counterpart of `writing.write_label_map`. Axes that are permuted or reversed are put right, number by number;
nothing is ever resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegr.errors import ImageError
from medsegr.imaging.label_decoding import LabelFile, open_labels
from medsegr.imaging.types import Picture, Volume

TOLERANCE = 0.05
"""Largest distance, in voxels, between the corners of two grids that are called the same."""


@dataclass(frozen=True, eq=False)
class LabelMap:
    """`values`, integers [H, W] or [X, Y, Z] on the image's grid. `moved`: the file had its axes otherwise. `suffix`
    is the file's kind: .nrrd, .nii.gz, .nii, .png or .bin.
    """

    values: NDArray[Any]
    moved: bool
    suffix: str


@dataclass(frozen=True)
class Placement:
    """Axis i of the image is axis `axes[i]` of the file, reversed where `reversed_[i]`."""

    axes: tuple[int, ...]
    reversed_: tuple[bool, ...]

    @property
    def moves(self) -> bool:
        """Whether anything has to be put right."""
        return self.axes != (0, 1, 2) or any(self.reversed_)

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """The view of `values` (three axes) in the image's order."""
        steps = tuple(slice(None, None, -1 if back else 1) for back in self.reversed_)
        return values.transpose(self.axes)[steps]


def read_label_map(path: Path, reference: Picture | Volume, what: str = "The label map") -> LabelMap:
    """Read an NRRD, NIfTI or (for pictures) PNG file of whole numbers on the grid of `reference`.

    A picture has no place in space: its masks have W x H values in raster order. Errors name the file as `what`.

    Raises:
        ImageError: the file is damaged, hostile or of another kind, lies on another grid, or holds fractions.
    """
    file = open_labels(path, what)
    if isinstance(reference, Picture):
        height, width = reference.pixels.shape[:2]
        if file.shape not in ((width, height), (width, height, 1)):
            raise ImageError(
                f"{what} has {_times(file.shape)} values, but the image has {width} x {height} pixels; one value per "
                "pixel is expected."
            )
        values = _whole(file.load().reshape((width, height), order="F").T, what)
        return LabelMap(values, False, file.suffix)
    placed = _place(file, reference)
    if placed is None:
        raise ImageError(
            f"{what} lies on another grid than the image: it has {_grid(file.shape, file.affine)}, the image has "
            f"{_grid(reference.shape, reference.affine)}."
        )
    values = _whole(file.load().reshape((*file.shape, 1)[:3], order="F"), what)
    return LabelMap(placed.apply(values), placed.moves, file.suffix)


def read_raw_labels(path: Path, reference: Picture | Volume, what: str = "The label map") -> LabelMap:
    """Read headerless bytes, one per voxel, x fastest (as stock OHIF sends them) on the grid of `reference`; raises
    `ImageError`.
    """
    picture = isinstance(reference, Picture)
    shape = reference.pixels.shape[:2] if isinstance(reference, Picture) else reference.shape
    count, found = int(np.prod(shape)), path.stat().st_size
    if found != count:
        raise ImageError(f"{what} has {found} bytes; {count}, one per voxel of the image, are expected.")
    values = np.fromfile(path, np.uint8).reshape(shape, order="C" if picture else "F")
    return LabelMap(values, False, ".bin")


def _place(file: LabelFile, reference: Volume) -> Placement | None:
    """How the file's axes lie on the image's, or None if the two grids are not made of the same voxels."""
    shape, wanted = (*file.shape, 1)[:3], reference.shape
    if file.affine is None or sorted(shape) != sorted(wanted) or not np.isfinite(file.affine).all():
        return None
    to_image = np.linalg.inv(np.asarray(reference.affine, float)) @ file.affine
    corners = np.asarray(list(product(*((0, side - 1) for side in shape))), float)
    landed = corners @ to_image[:3, :3].T + to_image[:3, 3]
    for axes in permutations(range(3)):
        if tuple(shape[axis] for axis in axes) != wanted:
            continue
        along = corners[:, axes]
        for back in product((False, True), repeat=3):
            ideal = np.where(back, np.asarray(wanted) - 1 - along, along)
            if np.abs(landed - ideal).max() < TOLERANCE:
                return Placement(axes, back)
    return None


def _whole(values: NDArray[Any], what: str) -> NDArray[Any]:
    """The values as integers; raises `ImageError` for fractions, colours and other things."""
    if values.dtype.kind == "b":
        return values.view(np.uint8)
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind == "f" and np.isfinite(values).all() and np.abs(values).max() < 2**31:
        whole = values.astype(np.int32)
        if np.array_equal(whole, values):
            return whole
    raise ImageError(f"{what} holds values that are not whole numbers; 0 outside and 1 inside are expected.")


def _grid(shape: tuple[int, ...], affine: NDArray[Any] | None) -> str:
    if affine is None:
        return f"{_times(shape)} values and no place in space"
    spacing = " x ".join(f"{float(s):.4g}" for s in np.linalg.norm(affine[:3, :3], axis=0))
    first = ", ".join(f"{float(v):.5g}" for v in affine[:3, 3])
    axes = "; ".join(
        " ".join(f"{float(v):.3f}" for v in affine[:3, i] / max(float(np.linalg.norm(affine[:3, i])), 1e-12))
        for i in range(3)
    )
    return f"{_times(shape)} voxels of {spacing} mm along ({axes}) from ({first}) mm RAS"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)
