"""Where DICOM images lie: order along the normal, spacing and the RAS affine, as GDCM and ITK understand
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medsegr.imaging.volume_reading import LPS_TO_RAS

MIN_GAP_MM = 1e-3
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CENTIMETRES = 3
"""Code of PhysicalUnitsXDirection in ultrasound regions (PS3.3 C.8.5.5.1.15)."""


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """`count` finite floats from a DICOM attribute, or None where it is missing, too short or damaged."""
    try:
        values = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        return None
    return values if len(values) == count and bool(np.isfinite(values).all()) else None


def in_plane_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """(row, column) spacing in mm: PixelSpacing, the detector's spacing, or an ultrasound region's; None if
    none is given.
    """
    for key in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = numbers(dataset.get(key), 2)
        if spacing and min(spacing) > 0:
            return spacing[0], spacing[1]
    regions = dataset.get("SequenceOfUltrasoundRegions") or []
    if (
        len(regions) == 1
        and regions[0].get("PhysicalUnitsXDirection")
        == regions[0].get("PhysicalUnitsYDirection")
        == CENTIMETRES
    ):
        row, column = (abs(float(regions[0].get(f"PhysicalDelta{axis}") or 0.0)) * 10.0 for axis in "YX")
        if row > 0 and column > 0:
            return row, column
    return None


def orientation(dataset: Dataset) -> tuple[float, ...] | None:
    """ImageOrientationPatient as two orthogonal unit vectors, or None where it is missing or degenerate."""
    cosines = numbers(dataset.get("ImageOrientationPatient"), 6)
    if cosines is None:
        return None
    row, column = np.asarray(cosines[:3]), np.asarray(cosines[3:])
    if min(np.linalg.norm(row), np.linalg.norm(column)) < 0.5 or abs(float(row @ column)) > 0.1:
        return None
    return cosines


def heights_mm(cosines: Sequence[float], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] places of slices at `positions` [N, 3] along the normal of `cosines` (6 numbers), in mm."""
    row, column = _directions(cosines)
    return np.asarray(positions @ np.cross(row, column))


def stack_affine(
    cosines: Sequence[float],
    positions: NDArray[np.float64],
    spacing: tuple[float, float],
    lone_gap_mm: float,
) -> NDArray[np.float64]:
    """The RAS affine [4, 4] of slices that are sorted along their normal, no two at the same place.

    Args:
        cosines: ImageOrientationPatient, 6 numbers.
        positions: [N, 3] ImagePositionPatient in mm (LPS).
        spacing: (row, column) in mm.
        lone_gap_mm: slice thickness, used where there is one slice only.

    The step between slices runs from the first to the last position, so a tilted gantry gives a sheared
    affine; its length is the median gap, which a missing slice does not spoil.
    """
    row, column = _directions(cosines)
    heights = heights_mm(cosines, positions)
    step = np.cross(row, column) * lone_gap_mm
    if len(heights) > 1:
        span = positions[-1] - positions[0]
        step = span * (float(np.median(np.diff(heights))) / float(heights[-1] - heights[0]))
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = row * spacing[1], column * spacing[0], step
    lps[:3, 3] = positions[0]
    return np.asarray(LPS_TO_RAS @ lps)


def _directions(cosines: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors along the rows and down the columns."""
    row, column = np.asarray(cosines[:3], float), np.asarray(cosines[3:], float)
    return row / np.linalg.norm(row), column / np.linalg.norm(column)


def slice_gap(dataset: Dataset) -> float:
    """SpacingBetweenSlices, else SliceThickness, else 1 mm: for images that say nothing about their
    positions.
    """
    for key in ("SpacingBetweenSlices", "SliceThickness"):
        gap = numbers([dataset.get(key)], 1)
        if gap and abs(gap[0]) > MIN_GAP_MM:
            return abs(gap[0])
    return 1.0
