"""DICOM files and folders become pictures and volumes. Called by `reading.read_image`, which names the
modality.

Optional attributes may be missing: without positions, slices are taken in the order of their instance
numbers. Order and grid come from `dicom_series`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medsegr.errors import ImageError
from medsegr.imaging.dicom_geometry import in_plane_spacing
from medsegr.imaging.dicom_headers import (
    CROSS_SECTIONAL,
    NOT_IMAGES,
    Member,
    body_part,
    files_below,
    frame_count,
    frame_groups,
    modality_code,
    read_headers,
    samples,
    series_name,
    text,
)
from medsegr.imaging.dicom_pixels import pixel_values
from medsegr.imaging.dicom_series import Stack, stacks
from medsegr.imaging.types import Picture, Volume

ACQUISITION_AXIS = 2
"""Of every DICOM volume: its planes are the images as they were stored."""


def read_dicom_file(path: Path, stack: int | None = None) -> Picture | Volume:
    """One DICOM file: a single image gives a `Picture`, several frames give a `Volume`; modality as DICOM
    writes it. `stack` as for `read_image`.
    """
    dataset = _load(path)
    _check_image(dataset, path)
    frames = frame_count(dataset)
    if frames > 1:
        if modality_code(dataset) == "SM":
            raise ImageError(
                f"{path.name} is a tiled whole-slide image; a picture cut out of it is expected."
            )
        return read_stack(_only(stacks([(path, dataset)]), stack, [(path, dataset)], path.name), dataset)
    values = pixel_values(dataset, path)
    _check_shape(values, dataset, frames, path)
    functional = frame_groups(dataset, 1)[0]
    return Picture(
        values,
        text(dataset, "Modality"),
        in_plane_spacing(dataset) or in_plane_spacing(functional),
        body_part(dataset),
    )


def read_dicom_folder(folder: Path, stack: int | None = None) -> Picture | Volume:
    """The one DICOM series in `folder` and below it as a `Volume`; a lone 2-D image (X-ray, ultrasound...) as
    a `Picture`. `stack` as for `read_image`.
    """
    headers = read_headers(files_below(folder))
    if not headers:
        raise ImageError(
            f"The folder {folder.name} holds no DICOM image; one series of DICOM files is expected."
        )
    series: dict[str, list[Member]] = {}
    for path, header in headers:
        series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))
    if len(series) > 1:
        names = "; ".join(sorted(series_name(members) for members in series.values())[:5])
        raise ImageError(
            f"The folder {folder.name} holds {len(series)} series ({names}); one series is expected."
        )
    if len(headers) == 1 and frame_count(headers[0][1]) > 1:
        return read_dicom_file(headers[0][0], stack)
    return read_stack(_only(stacks(headers), stack, headers, f"The folder {folder.name}"))


def read_stack(stack: Stack, loaded: Dataset | None = None) -> Picture | Volume:
    """The pixels of a stack, on the grid and in the order that it names; `loaded` is its only file, if it was read already."""
    if not stack.is_volume:
        picture = read_dicom_file(stack.paths[0])
        assert isinstance(picture, Picture)  # one frame
        return picture
    places: dict[Path, list[tuple[int, int]]] = {}
    for index, (path, slice_) in enumerate(zip(stack.sources, stack.slices, strict=True)):
        places.setdefault(path, []).append((index, slice_.frame - 1))
    voxels: NDArray[Any] | None = None
    for path, planes in places.items():
        dataset = loaded if loaded is not None else _load(path)
        _check_image(dataset, path)
        frames = frame_count(dataset)
        values = pixel_values(dataset, path)
        _check_shape(values, dataset, frames, path)
        values = values if frames > 1 else values[None]
        if voxels is None:
            colour = values.shape[3:]
            voxels = np.empty((*stack.shape, *colour), np.uint8 if colour else np.float32)
        for index, frame in planes:
            voxels[:, :, index] = np.swapaxes(values[frame], 0, 1)
    assert voxels is not None and stack.affine is not None  # a stack is never empty
    return Volume(voxels, stack.affine, stack.modality, stack.body_part, ACQUISITION_AXIS)


def _only(found: Sequence[Stack], wanted: int | None, members: Sequence[Member], what: str) -> Stack:
    """The stack of this number, counted from 1, or the only one; raises `ImageError`."""
    if not found:
        raise ImageError(f"{what} holds no DICOM image that can be read; one series is expected.")
    if wanted is not None:
        if not 1 <= wanted <= len(found):
            raise ImageError(f"{what} has stacks 1 to {len(found)}; one of them is expected.")
        return found[wanted - 1]
    if len(found) > 1:
        raise ImageError(f"{what} {_why_several(found, members)}")
    return found[0]


def _why_several(found: Sequence[Stack], members: Sequence[Member]) -> str:
    """What keeps a series from being one stack, and what is expected."""
    sizes = sorted({(int(h.Rows), int(h.Columns), samples(h)) for _, h in members})
    first = members[0][1]
    if len(sizes) > 1:
        named = ", ".join(
            f"{rows} x {columns}" + (" colour" if samples > 1 else "") for rows, columns, samples in sizes[:5]
        )
        return f"mixes images of {len(sizes)} sizes ({named}); one series of equal slices is expected."
    frames = frame_count(first)
    if len(members) > 1 and any(frame_count(header) > 1 for _, header in members):
        return f"holds {len(members)} multi-frame files; one of them is expected."
    if frames == 1 and modality_code(first) not in CROSS_SECTIONAL and not all(s.is_volume for s in found):
        return (
            f"holds {len(members)} separate {first.get('Modality', '')} images without positions; "
            "one image, or a series of slices, is expected."
        )
    directions = [
        np.asarray(s.affine)[:3, :2] / np.linalg.norm(np.asarray(s.affine)[:3, :2], axis=0) for s in found
    ]
    if any(np.abs(d - directions[0]).max() > 1e-3 for d in directions):
        kind = "frames" if frames > 1 else "slices"
        return f"mixes {kind} of different orientations; one series of parallel slices is expected."
    twins = sum(len(s.slices) for s in found[1:]) + 1
    return f"holds {twins} images at the same position; one image per slice position is expected."


def _load(path: Path) -> Dataset:
    """The whole data set; without a meta header, its transfer syntax is the uncompressed one it parses as."""
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        explicit = ExplicitVRLittleEndian if dataset.is_little_endian else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if dataset.is_implicit_VR else explicit
    return dataset


def _check_image(dataset: Dataset, path: Path) -> None:
    modality = modality_code(dataset)
    if modality in NOT_IMAGES:
        raise ImageError(f"{path.name} is a DICOM {modality} object; an image is expected.")
    if not any(key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageError(f"{path.name} is a DICOM file without pixel data; an image is expected.")
    if int(dataset.get("Rows", 0) or 0) < 1 or int(dataset.get("Columns", 0) or 0) < 1:
        raise ImageError(
            f"{path.name} has {dataset.get('Rows', 0)} rows and {dataset.get('Columns', 0)} columns; "
            "at least one of each is expected."
        )


def _check_shape(values: NDArray[Any], dataset: Dataset, frames: int, path: Path) -> None:
    expected = ((frames,) if frames > 1 else ()) + (int(dataset.Rows), int(dataset.Columns))
    if values.shape[: len(expected)] != expected:
        raise ImageError(
            f"{path.name} decodes to shape {values.shape}; {expected} is expected from its header."
        )
