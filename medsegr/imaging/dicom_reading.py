"""DICOM files and folders become pictures and volumes. Called by `reading.read_image`, which names the
modality.

Optional attributes may be missing: without positions, slices are taken in the order of their instance
numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medsegr.errors import ImageError
from medsegr.imaging.dicom_geometry import AXIAL, in_plane_spacing, numbers, orientation, slice_gap, stack
from medsegr.imaging.dicom_pixels import pixel_values
from medsegr.imaging.types import Picture, Volume

CROSS_SECTIONAL = frozenset({"CT", "MR", "PT", "NM"})
NOT_IMAGES = frozenset({"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTDOSE", "RTPLAN", "REG", "DOC", "FID"})
MAX_TILT = 1e-3
"""Largest difference of direction cosines within one series."""


def looks_like_dicom(path: Path) -> bool:
    """Whether a file without the `DICM` mark still parses as a DICOM data set that names its class or its
    rows.
    """
    try:
        dataset = pydicom.dcmread(
            path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID", "Rows"]
        )
        return "SOPClassUID" in dataset or "Rows" in dataset
    # Broad on purpose: forced on arbitrary bytes, the parser raises almost anything, and each time the answer
    # is no.
    except Exception:  # noqa: BLE001
        return False


def read_dicom_file(path: Path) -> Picture | Volume:
    """One DICOM file: a single image gives a `Picture`, several frames give a `Volume`; modality as DICOM
    writes it.
    """
    dataset = _load(path)
    _check_image(dataset, path)
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames > 1 and str(dataset.get("Modality", "")).upper() == "SM":
        raise ImageError(f"{path.name} is a tiled whole-slide image; a picture cut out of it is expected.")
    values = pixel_values(dataset, path)
    _check_shape(values, dataset, frames, path)
    if frames > 1:
        return _multi_frame(dataset, values, path)
    functional = _frame_groups(dataset, 1)[0]
    return Picture(
        values,
        _text(dataset, "Modality"),
        in_plane_spacing(dataset) or in_plane_spacing(functional),
        _body_part(dataset),
    )


def read_dicom_folder(folder: Path) -> Picture | Volume:
    """The one DICOM series in `folder` and below it as a `Volume`; a lone 2-D image (X-ray, ultrasound...) as
    a `Picture`.
    """
    headers = _headers(folder)
    if not headers:
        raise ImageError(
            f"The folder {folder.name} holds no DICOM image; one series of DICOM files is expected."
        )
    series: dict[str, list[tuple[Path, Dataset]]] = {}
    for path, header in headers:
        series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))
    if len(series) > 1:
        names = "; ".join(sorted(_series_name(members) for members in series.values())[:5])
        raise ImageError(
            f"The folder {folder.name} holds {len(series)} series ({names}); one series is expected."
        )
    first_path, first = headers[0]
    flat = str(first.get("Modality", "")).upper() not in CROSS_SECTIONAL
    if len(headers) == 1 and (flat or int(first.get("NumberOfFrames", 1) or 1) > 1):
        return read_dicom_file(first_path)
    return _read_series(headers, folder)


def _read_series(headers: list[tuple[Path, Dataset]], folder: Path) -> Volume:
    what = f"The folder {folder.name}"
    first = headers[0][1]
    sizes = sorted({(int(h.Rows), int(h.Columns), int(h.get("SamplesPerPixel", 1))) for _, h in headers})
    if len(sizes) > 1:
        named = ", ".join(
            f"{rows} x {columns}" + (" colour" if samples > 1 else "") for rows, columns, samples in sizes[:5]
        )
        raise ImageError(
            f"{what} mixes images of {len(sizes)} sizes ({named}); one series of equal slices is expected."
        )
    if any(int(h.get("NumberOfFrames", 1) or 1) > 1 for _, h in headers):
        raise ImageError(f"{what} holds {len(headers)} multi-frame files; one of them is expected.")
    headers, affine = _arrange(headers, what)
    voxels = None
    for index, (path, _) in enumerate(headers):
        dataset = _load(path)
        values = pixel_values(dataset, path)
        _check_shape(values, dataset, 1, path)
        plane = np.swapaxes(values, 0, 1)
        if voxels is None:
            dtype = np.uint8 if plane.ndim == 3 else np.float32
            voxels = np.empty((*plane.shape[:2], len(headers), *plane.shape[2:]), dtype)
        voxels[:, :, index] = plane
    assert voxels is not None  # headers is never empty
    return Volume(voxels, affine, _text(first, "Modality"), _body_part(first))


def _arrange(
    headers: list[tuple[Path, Dataset]], what: str
) -> tuple[list[tuple[Path, Dataset]], NDArray[np.float64]]:
    """Sort slices by their place along the normal (not by InstanceNumber) and give the stack's RAS affine."""
    first = headers[0][1]
    spacing = in_plane_spacing(first) or (1.0, 1.0)
    cosines = [orientation(h) for _, h in headers]
    positions = [numbers(h.get("ImagePositionPatient"), 3) for _, h in headers]
    if any(c is None for c in cosines) or any(p is None for p in positions):
        if str(first.get("Modality", "")).upper() not in CROSS_SECTIONAL:
            raise ImageError(
                f"{what} holds {len(headers)} separate {first.get('Modality', '')} images without positions; "
                "one image, or a series of slices, is expected."
            )
        ordered = sorted(headers, key=lambda item: (_instance_number(item[1]), item[0].name))
        heights = np.outer(np.arange(len(headers)) * slice_gap(first), [0.0, 0.0, 1.0])
        return ordered, stack(AXIAL, heights, spacing, slice_gap(first), what)[1]
    directions = np.asarray(cosines, float)
    if np.abs(directions - directions[0]).max() > MAX_TILT:
        raise ImageError(
            f"{what} mixes slices of different orientations; one series of parallel slices is expected."
        )
    order, affine = stack(directions[0], np.asarray(positions, float), spacing, slice_gap(first), what)
    return [headers[i] for i in order], affine


def _multi_frame(dataset: Dataset, values: NDArray[Any], path: Path) -> Volume:
    """[F, H, W(, 3)] -> a volume: enhanced objects by their frames' positions, others with the frames one
    slice gap apart.
    """
    frames = len(values)
    groups = _frame_groups(dataset, frames)
    spacing = in_plane_spacing(groups[0]) or in_plane_spacing(dataset) or (1.0, 1.0)
    cosines = [orientation(g) for g in groups]
    positions = [numbers(g.get("ImagePositionPatient"), 3) for g in groups]
    gap = slice_gap(groups[0]) if slice_gap(groups[0]) != 1.0 else slice_gap(dataset)
    known = [c for c in cosines if c is not None]
    if len(known) == frames and None not in positions:
        if np.abs(np.asarray(known) - np.asarray(known[0])).max() > MAX_TILT:
            raise ImageError(
                f"{path.name} mixes frames of different orientations; parallel slices are expected."
            )
        order, affine = stack(known[0], np.asarray(positions, float), spacing, gap, path.name)
    else:
        order, affine = stack(
            AXIAL, np.outer(np.arange(frames) * gap, [0.0, 0.0, 1.0]), spacing, gap, path.name
        )
    colour = values.ndim == 4
    voxels = np.swapaxes(np.moveaxis(values[order], 0, 2), 0, 1)
    return Volume(
        np.ascontiguousarray(voxels, np.uint8 if colour else np.float32),
        affine,
        _text(dataset, "Modality"),
        _body_part(dataset),
    )


def _frame_groups(dataset: Dataset, frames: int) -> list[Dataset]:
    """Per frame, the attributes of its plane out of the shared and per-frame functional groups, flattened."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    groups = []
    for index in range(frames):
        flat = Dataset()
        for source in (shared, per_frame[index] if index < len(per_frame) else None):
            for key in ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence"):
                for item in (source.get(key) or [])[:1] if source is not None else []:
                    flat.update(item)
        groups.append(flat)
    return groups


def _headers(folder: Path) -> list[tuple[Path, Dataset]]:
    """Headers of all DICOM images under `folder`; other files (DICOMDIR, reports, segmentations, notes) are
    passed over.
    """
    found: list[tuple[Path, Dataset]] = []
    for path in sorted(
        p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.name != "DICOMDIR"
    ):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError):
            if (
                not path.stat().st_size
                or path.suffix.lower() not in {"", ".dcm", ".ima"}
                or not looks_like_dicom(path)
            ):
                continue
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if (
            "Rows" in header
            and "Columns" in header
            and str(header.get("Modality", "")).upper() not in NOT_IMAGES
        ):
            found.append((path, header))
    return found


def _load(path: Path) -> Dataset:
    """The whole data set; without a meta header, its transfer syntax is the uncompressed one it parses as."""
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        explicit = ExplicitVRLittleEndian if dataset.is_little_endian else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if dataset.is_implicit_VR else explicit
    return dataset


def _check_image(dataset: Dataset, path: Path) -> None:
    modality = str(dataset.get("Modality", "")).upper()
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


def _series_name(members: list[tuple[Path, Dataset]]) -> str:
    header = members[0][1]
    name = str(header.get("SeriesDescription", "") or f"series {header.get('SeriesNumber', '?')}").strip()
    return f"{header.get('Modality', 'image')} '{name}' of {len(members)} images"


def _instance_number(header: Dataset) -> int:
    number = numbers([header.get("InstanceNumber")], 1)
    return int(number[0]) if number else 0


def _text(dataset: Dataset, key: str) -> str | None:
    return str(dataset.get(key, "") or "").strip() or None


def _body_part(dataset: Dataset) -> str | None:
    part = _text(dataset, "BodyPartExamined")
    return part.upper() if part else None
