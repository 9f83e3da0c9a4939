"""Which images of a DICOM series lie on one grid, and in which order: its stacks.

A series may mix a CT with its localiser, radiographs of several sizes, or the echoes of an MR. Each stack is read as one
`Picture` or one `Volume` by `dicom_reading`, which takes its order and its grid from here: plane k of the third axis of a
stack's voxels, and of every mask on them, shows the instance `slices[k]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medsegr.imaging.dicom_geometry import (
    AXIAL,
    MIN_GAP_MM,
    heights_mm,
    in_plane_spacing,
    numbers,
    orientation,
    slice_gap,
    stack_affine,
)
from medsegr.imaging.dicom_headers import (
    CROSS_SECTIONAL,
    Member,
    body_part,
    frame_count,
    frame_groups,
    instance_number,
    modality_code,
    read_headers,
    samples,
    sop_uid,
    text,
)

MAX_TILT = 1e-3
"""Largest difference of direction cosines within one stack."""


@dataclass(frozen=True)
class SliceRef:
    """One image by DICOM's names: its SOPInstanceUID ("" where the file has none) and its frame, counted from 1."""

    sop_uid: str
    frame: int


@dataclass(frozen=True, eq=False)
class Stack:
    """Images on one grid, in the order of the voxels.

    `sources[k]` and `slices[k]` are the file and the name of plane k. `shape` is (X, Y, Z) = (columns, rows, planes) of a
    volume with its `affine` [4, 4] to RAS millimetres, or (H, W) of a picture, which has one plane and no affine.
    `spacing_mm` is (row, column), None where no file gives it. `modality` is DICOM's own code.
    """

    sources: tuple[Path, ...]
    slices: tuple[SliceRef, ...]
    shape: tuple[int, ...]
    modality: str | None
    body_part: str | None
    spacing_mm: tuple[float, float] | None
    affine: NDArray[np.float64] | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Each file once, in the order of its first plane."""
        return tuple(dict.fromkeys(self.sources))

    @property
    def is_volume(self) -> bool:
        """Whether it is read as a `Volume`."""
        return self.affine is not None

    def index(self, sop_uid: str, frame: int = 1) -> int | None:
        """The plane that shows an image, None where it is not in this stack."""
        wanted = SliceRef(sop_uid, frame)
        return self.slices.index(wanted) if wanted in self.slices else None


@dataclass(frozen=True, eq=False)
class _Plane:
    """One image: a file of one frame, or a frame of many. `group` has the attributes of its plane."""

    path: Path
    header: Dataset
    frame: int
    group: Dataset

    @property
    def place(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Orientation and position, None unless both are there."""
        cosines = orientation(self.group)
        position = numbers(self.group.get("ImagePositionPatient"), 3)
        return (cosines, position) if cosines is not None and position is not None else None

    @property
    def rank(self) -> tuple[int, str, int]:
        """Order without positions: by instance number, then file name, then frame."""
        return instance_number(self.header), self.path.name, self.frame


def stacks(files: Iterable[Path | Member]) -> tuple[Stack, ...]:
    """The stacks of one series, the one of most planes first, then by instance number; empty where nothing is an image.

    An instance that is there twice counts once. Images at the same place, as of several echoes, go to as many stacks.
    """
    given = list(files)
    headers = read_headers(path for path in given if isinstance(path, Path))
    headers += [member for member in given if not isinstance(member, Path)]
    found: list[tuple[tuple[int, str, int], Stack]] = []
    for planes in _alike(_each_once(headers)):
        for group in _parallel(planes):
            found += [(min(p.rank for p in run), _stack(run)) for run in _runs(group)]
    found.sort(key=lambda entry: (-len(entry[1].slices), entry[0]))
    return tuple(entry[1] for entry in found)


def _each_once(members: Sequence[Member]) -> list[Member]:
    """Images that can be read, without second copies of an instance."""
    kept: dict[str, Member] = {}
    for path, header in sorted(members, key=lambda member: member[0].name):
        tiled = modality_code(header) == "SM" and frame_count(header) > 1
        sizes = numbers([header.get("Rows"), header.get("Columns")], 2)
        if not tiled and sizes is not None and min(sizes) >= 1:
            kept.setdefault(sop_uid(header) or str(path), (path, header))
    return list(kept.values())


def _alike(members: Iterable[Member]) -> list[list[_Plane]]:
    """Planes of equal size and colour; a multi-frame file is on its own."""
    groups: dict[tuple[Any, ...], list[_Plane]] = {}
    for path, header in members:
        frames = frame_count(header)
        if frames > 1:
            attributes = frame_groups(header, frames)
            groups[(path,)] = [_Plane(path, header, n, group) for n, group in enumerate(attributes, start=1)]
            continue
        key = (int(header.Rows), int(header.Columns), samples(header) > 1)
        groups.setdefault(key, []).append(_Plane(path, header, 1, header))
    return list(groups.values())


def _parallel(planes: list[_Plane]) -> list[list[_Plane]]:
    """Planes of one orientation, and those without a place: all together where slices are taken, else one by one."""
    multi_frame = frame_count(planes[0].header) > 1
    placed = [plane for plane in planes if plane.place is not None]
    if multi_frame and len(placed) < len(planes):
        return [planes]
    groups: list[list[_Plane]] = []
    for plane in placed:
        assert plane.place is not None
        direction = np.asarray(plane.place[0])
        for group in groups:
            assert group[0].place is not None
            if np.abs(direction - group[0].place[0]).max() <= MAX_TILT:
                group.append(plane)
                break
        else:
            groups.append([plane])
    loose = [plane for plane in planes if plane.place is None]
    sliced = [plane for plane in loose if modality_code(plane.header) in CROSS_SECTIONAL]
    groups += [sliced] if sliced else []
    groups += [[plane] for plane in loose if modality_code(plane.header) not in CROSS_SECTIONAL]
    return groups


def _runs(planes: list[_Plane]) -> list[list[_Plane]]:
    """Sorted along the normal, no two at the same place: the second at each place goes to a second run, and so on."""
    places = [plane.place for plane in planes]
    if any(place is None for place in places):
        return [sorted(planes, key=lambda plane: plane.rank)]
    known = [place for place in places if place is not None]
    heights = heights_mm(known[0][0], np.asarray([position for _, position in known], float))
    ordered = sorted(zip(heights.tolist(), planes, strict=True), key=lambda entry: entry[0])
    levels: list[list[tuple[float, _Plane]]] = []
    for height, plane in ordered:
        if levels and height - levels[-1][0][0] < MIN_GAP_MM:
            levels[-1].append((height, plane))
        else:
            levels.append([(height, plane)])
    levels = [sorted(level, key=lambda entry: entry[1].rank) for level in levels]
    repeats = max(len(level) for level in levels)
    return [[level[n][1] for level in levels if n < len(level)] for n in range(repeats)]


def _stack(planes: list[_Plane]) -> Stack:
    """`planes` are in order; the first one speaks for all."""
    first = min(planes, key=lambda plane: plane.rank)
    header, group = first.header, first.group
    rows, columns = int(header.Rows), int(header.Columns)
    spacing = in_plane_spacing(group) or in_plane_spacing(header)
    code = modality_code(header)
    flat = len(planes) == 1 and frame_count(header) == 1 and code not in CROSS_SECTIONAL
    gap = slice_gap(group) if slice_gap(group) != 1.0 else slice_gap(header)
    places = [plane.place for plane in planes]
    known = [place for place in places if place is not None]
    cosines: Sequence[float] = AXIAL
    positions = np.outer(np.arange(len(planes)) * gap, [0.0, 0.0, 1.0])
    if len(known) == len(planes):
        cosines, positions = known[0][0], np.asarray([position for _, position in known], float)
    return Stack(
        sources=tuple(plane.path for plane in planes),
        slices=tuple(SliceRef(sop_uid(plane.header), plane.frame) for plane in planes),
        shape=(rows, columns) if flat else (columns, rows, len(planes)),
        modality=text(header, "Modality"),
        body_part=body_part(header),
        spacing_mm=spacing,
        affine=None if flat else stack_affine(cosines, positions, spacing or (1.0, 1.0), gap),
    )
