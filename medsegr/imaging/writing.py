"""Write a label map on exactly the grid of the image it was drawn on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from PIL import Image

from medsegr.errors import ImageError
from medsegr.imaging.types import Picture, Volume
from medsegr.imaging.volume_reading import LPS_TO_RAS, itk_reader, refuse_detached

SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".png")


@dataclass(frozen=True)
class Grid:
    """SimpleITK's geometry (LPS): size, origin and spacing of `n` axes and the flattened n x n direction."""

    size: tuple[int, ...]
    origin: tuple[float, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...]

    def cut(self, n: int) -> Grid:
        """The first `n` axes of this grid."""
        direction = np.asarray(self.direction).reshape(len(self.size), -1)[:n, :n]
        return Grid(
            self.size[:n], self.origin[:n], self.spacing[:n], tuple(float(v) for v in direction.ravel())
        )


def write_label_map(
    path: Path | str, labels: NDArray[np.uint8], reference: Picture | Volume, source: Path | str | None = None
) -> None:
    """Write `labels` (uint8, [H, W] or [X, Y, Z], on the grid of `reference`) as NRRD, NIfTI or PNG.

    The header repeats the geometry of the image that `reference` was read from. With its file as `source`,
    size, origin, spacing and direction are the ones that ITK (hence Slicer) reads from that file, number by
    number; without it, or for a DICOM series, they follow from the reference's affine. NRRD is in LPS,
    gzip-compressed; a picture gives a 2-D file of size (W, H). PNG is for pictures only.
    """
    path = Path(path)
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise ImageError(
            f"A label map cannot be written as {path.name}; one of {', '.join(SUFFIXES)} is expected."
        )
    labels = np.asarray(labels)
    shape = reference.shape if isinstance(reference, Volume) else reference.pixels.shape[:2]
    if labels.shape != shape or labels.dtype not in (np.uint8, np.bool_):
        raise ImageError(
            f"A label map is {labels.dtype} of shape {labels.shape}; uint8 of shape {shape} is expected."
        )
    labels = labels.astype(np.uint8, copy=False)
    source = Path(source) if source is not None else None
    if suffix == ".png":
        if isinstance(reference, Volume):
            raise ImageError(
                "A label map of a volume cannot be written as PNG; .nrrd or .nii.gz is expected."
            )
        Image.fromarray(labels).save(path, format="PNG")
    elif suffix != ".nrrd" and isinstance(reference, Volume):
        _write_nifti(path, labels, reference, source)
    else:
        _write_itk(path, labels, reference, source)


def grid_of(reference: Picture | Volume, source: Path | None) -> Grid:
    """The grid that a label map of `reference` has to have; see `write_label_map`."""
    if isinstance(reference, Picture):
        height, width = reference.pixels.shape[:2]
        own = _picture_grid(reference)
        found = _source_grid(source)
        return (
            found.cut(2) if found is not None and found.size[:2] == (width, height) and _flat(found) else own
        )
    own = _volume_grid(reference)
    found = _source_grid(source)
    if found is None or found.size + (1,) * (3 - len(found.size)) != own.size + (1,) * (len(found.size) - 3):
        return own
    return found.cut(min(len(found.size), 3))


def _flat(grid: Grid) -> bool:
    """Whether the first two axes make a direction of their own: those of a sagittal DICOM image do not."""
    return abs(float(np.linalg.det(np.asarray(grid.cut(2).direction).reshape(2, 2)))) > 0.5


def _picture_grid(picture: Picture) -> Grid:
    row, column = picture.spacing_mm or (1.0, 1.0)
    return Grid(
        (picture.pixels.shape[1], picture.pixels.shape[0]), (0.0, 0.0), (column, row), (1.0, 0.0, 0.0, 1.0)
    )


def _volume_grid(volume: Volume) -> Grid:
    lps = LPS_TO_RAS @ np.asarray(volume.affine, float)
    direction = lps[:3, :3] / np.asarray(volume.spacing_mm)
    origin = tuple(float(v) for v in lps[:3, 3])
    return Grid(volume.shape, origin, volume.spacing_mm, tuple(float(v) for v in direction.ravel()))


def _source_grid(source: Path | None) -> Grid | None:
    """Geometry that ITK reads from a file; None where there is no file, or ITK cannot make sense of it."""
    if source is None or not source.is_file():
        return None
    reader = itk_reader(source)
    try:
        if source.name.lower().endswith((".nrrd", ".nhdr")):
            refuse_detached(source)
        reader.ReadImageInformation()
    except (RuntimeError, ImageError):
        return None
    return Grid(tuple(reader.GetSize()), reader.GetOrigin(), reader.GetSpacing(), reader.GetDirection())


def _write_itk(
    path: Path, labels: NDArray[np.uint8], reference: Picture | Volume, source: Path | None
) -> None:
    grid = grid_of(reference, source)
    array = labels.T if isinstance(reference, Volume) else labels
    image: Any = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.reshape(tuple(reversed(grid.size)))))
    image.SetOrigin(grid.origin)
    image.SetSpacing(grid.spacing)
    image.SetDirection(grid.direction)
    try:
        SimpleITK.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise ImageError(
            f"{path.name} cannot be written; an existing folder with room in it is expected."
        ) from error


def _write_nifti(path: Path, labels: NDArray[np.uint8], reference: Volume, source: Path | None) -> None:
    """Copies the source's own sform and qform, where it is NIfTI: both ITK and nibabel then see the source's
    grid.
    """
    build: Any = nib.Nifti1Image
    header = _nifti_header(source)
    if header is not None and _three(header.get_data_shape()) == labels.shape:
        header = header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        header["intent_code"] = 0
        if header["qform_code"] == 0 and header["sform_code"] == 0:
            image = build(labels, None, header)
        else:
            image = build(labels, header.get_best_affine(), header)
    else:
        image = build(labels, np.asarray(reference.affine, float))
        image.set_sform(reference.affine, code=1)
        image.set_qform(reference.affine, code=1)
    nib.save(image, path)


def _nifti_header(source: Path | None) -> Any:
    if source is None or not source.is_file():
        return None
    try:
        header = nib.load(source).header
    except (ImageFileError, OSError, EOFError):
        return None
    return header if isinstance(header, nib.Nifti1Header) else None


def _three(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, 1, 1)[:3] if all(n == 1 for n in shape[3:]) else tuple(shape)
