"""The two kinds of image that everything else works on: a 2-D `Picture` and a 3-D `Volume`.

Both are plain values. They know their grid and nothing about files; reading and writing live beside this
module.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medsegr.errors import ImageError

ANISOTROPY = 1.5
"""An axis is the acquisition axis when its spacing exceeds both others by this factor."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A 2-D image on the grid it was stored on (EXIF rotation is not applied).

    `pixels` [H, W] or [H, W, 3]: uint8 when the values are display values, uint16 for 16-bit pictures,
    float32 for DICOM values (HU for CT). `modality` is one of CT, MR, XR, US, FUNDUS, DERM, PHOTO, MICRO,
    another DICOM code, or None. `spacing_mm` is (row, column). `body_part` is DICOM's BodyPartExamined in
    upper case.
    """

    pixels: NDArray[Any]
    modality: str | None
    spacing_mm: tuple[float, float] | None
    body_part: str | None = None

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape:
            raise ImageError(
                f"A picture has shape {shape}; [H, W] or [H, W, 3] with at least one pixel is expected."
            )
        if self.pixels.dtype.kind == "f" and not np.isfinite(self.pixels).all():
            raise ImageError(
                "The picture holds values that are not finite numbers; finite values are expected."
            )
        if self.spacing_mm is not None and not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise ImageError(
                f"A picture has pixel spacing {self.spacing_mm}; two positive lengths in mm are expected."
            )


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image and its place in the patient.

    `voxels` [X, Y, Z] float32, or [X, Y, Z, 3] uint8 for colour. `affine` [4, 4] maps a voxel index to RAS
    millimetres (nibabel's convention: x grows to the patient's right, y to the front, z to the head).
    `acquisition_axis` is the axis across the slices where it is known, as it is of DICOM.
    """

    voxels: NDArray[Any]
    affine: NDArray[Any]
    modality: str | None
    body_part: str | None = None
    acquisition_axis: int | None = None

    def __post_init__(self) -> None:
        shape = self.voxels.shape
        if not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)) or 0 in shape:
            raise ImageError(
                f"A volume has shape {shape}; [X, Y, Z] or [X, Y, Z, 3] with at least one voxel is expected."
            )
        if self.voxels.dtype.kind == "f" and not np.isfinite(self.voxels).all():
            bad = int(np.size(self.voxels) - np.count_nonzero(np.isfinite(self.voxels)))
            raise ImageError(
                f"The volume holds {bad} values that are not finite numbers; finite values are expected."
            )
        affine = np.asarray(self.affine)
        if (
            affine.shape != (4, 4)
            or not np.isfinite(affine).all()
            or abs(np.linalg.det(affine[:3, :3])) < 1e-12
        ):
            raise ImageError(
                "The volume's affine is not an invertible 4 x 4 matrix, so its voxels have no place in space."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z), without the colour axis."""
        x, y, z = self.voxels.shape[:3]
        return x, y, z

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Length of one step along each voxel axis."""
        x, y, z = np.linalg.norm(np.asarray(self.affine, dtype=float)[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @cached_property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(np.asarray(self.affine, dtype=float)[:3, :3])) / 1000.0)

    @cached_property
    def _orientation(self) -> tuple[tuple[int, bool], ...]:
        """For each voxel axis: the RAS axis closest to it, and whether the index grows along it."""
        orientation: Any = nib.io_orientation
        return tuple((int(axis), bool(sign > 0)) for axis, sign in orientation(self.affine))

    @cached_property
    def slice_axis(self) -> int:
        """The acquisition axis if it is known, else the only axis of size 1, else of clearly largest spacing,
        else closest to head-foot.
        """
        if self.acquisition_axis is not None:
            return self.acquisition_axis
        single = [axis for axis in range(3) if self.shape[axis] == 1]
        if len(single) == 1:
            return single[0]
        largest = int(np.argmax(self.spacing_mm))
        others = [self.spacing_mm[axis] for axis in range(3) if axis != largest]
        if self.spacing_mm[largest] > ANISOTROPY * max(others):
            return largest
        return next(axis for axis in range(3) if self._orientation[axis][0] == 2)

    @property
    def n_slices(self) -> int:
        """Number of slices along `slice_axis`."""
        return self.shape[self.slice_axis]

    @property
    def slice_spacing_mm(self) -> tuple[float, float]:
        """(row, column) spacing of a slice as `slice_pixels` shows it."""
        row, column = self._plane_axes
        return self.spacing_mm[row], self.spacing_mm[column]

    @property
    def _plane_axes(self) -> tuple[int, int]:
        """Voxel axes shown as (rows, columns): rows run to the feet, or to the back in an axial slice."""
        first, second = (axis for axis in range(3) if axis != self.slice_axis)
        # Rows show the higher of the two RAS axes (S before A before R); columns show the other one.
        return (
            (first, second) if self._orientation[first][0] > self._orientation[second][0] else (second, first)
        )

    def slice_from_volume(self, k: int, array: NDArray[Any]) -> NDArray[Any]:
        """The view [H, W] (or [H, W, 3]) of slice `k` of any `array` [X, Y, Z] (or [X, Y, Z, 3]) on this
        grid.

        Radiological display: axial has row 0 anterior and column 0 at the patient's right; coronal has row 0
        at the head and column 0 at the patient's right; sagittal has row 0 at the head and column 0 anterior.
        """
        if array.shape[:3] != self.shape:
            raise ImageError(f"An array of shape {array.shape} is not on the volume's grid {self.shape}.")
        if not 0 <= k < self.n_slices:
            raise ImageError(f"Slice {k} does not exist; this volume has slices 0 to {self.n_slices - 1}.")
        row, column = self._plane_axes
        plane: NDArray[Any] = np.moveaxis(array, (self.slice_axis, row, column), (0, 1, 2))[k]
        # R, A and S all shrink along the rows and columns of the display, so an axis that grows along them is
        # reversed.
        row_step, column_step = (-1 if self._orientation[axis][1] else 1 for axis in (row, column))
        return plane[::row_step, ::column_step]

    def slice_pixels(self, k: int) -> NDArray[Any]:
        """Slice `k` [H, W] or [H, W, 3] in display orientation; see `slice_from_volume`."""
        return np.ascontiguousarray(self.slice_from_volume(k, self.voxels))

    def slice_mask_to_volume(self, k: int, mask2d: NDArray[Any], out: NDArray[Any]) -> None:
        """Write `mask2d` [H, W], in display orientation, into slice `k` of `out` [X, Y, Z]; undoes
        `slice_pixels`.
        """
        view = self.slice_from_volume(k, out)
        if view.shape != mask2d.shape:
            raise ImageError(f"A mask of shape {mask2d.shape} does not fit slices of shape {view.shape}.")
        view[...] = mask2d
