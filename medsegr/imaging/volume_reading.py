"""NIfTI and NRRD files become volumes. Called by `reading.read_image`, which turns decoder errors into
`ImageError`.
"""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from medsegr.errors import ImageError
from medsegr.imaging.types import Volume

MAX_VOXELS = 2**30
"""A larger header is taken for damage rather than obeyed (4 GiB as float32)."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
CT_AIR_HU = -500.0


def is_nifti_header(head: bytes) -> bool:
    """Whether the (inflated) first bytes of a file are a single-file NIfTI-1 or NIfTI-2 header."""
    if len(head) >= 348 and head[344:348] == b"n+1\x00":
        return True
    return (
        len(head) >= 540
        and head[4:8] == b"n+2\x00"
        and 540 in struct.unpack("<i", head[:4]) + struct.unpack(">i", head[:4])
    )


def read_nifti(path: Path, modality: str | None) -> Volume:
    """Read a NIfTI file, 2-D or 3-D, grey or RGB, whatever its suffix says."""
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = _gunzip(data, path)
    kind: Any = nib.Nifti2Image if data[4:8] == b"n+2\x00" else nib.Nifti1Image
    shape = kind.header_class.from_fileobj(io.BytesIO(data), check=False).get_data_shape()
    _check_size(shape, path)
    image = kind.from_bytes(data)
    raw = np.asanyarray(image.dataobj)
    if raw.dtype.names:  # RGB24 and RGBA32 are structured types
        raw = np.stack([raw[channel] for channel in raw.dtype.names[:3]], axis=-1)
        voxels: NDArray[Any] = _colour_grid(raw, path)
    elif raw.ndim >= 4 and raw.shape[-1] in (3, 4) and raw.dtype == np.uint8:
        voxels = _colour_grid(raw[..., :3], path)
    else:
        voxels = _grey_grid(raw, path)
    return Volume(voxels, np.asarray(image.affine, float), modality or guess_modality(voxels))


def read_nrrd(path: Path, modality: str | None) -> Volume:
    """Read an NRRD file with its data attached, 2-D or 3-D, grey or RGB."""
    refuse_detached(path)
    reader = itk_reader(path)
    reader.SetImageIO("NrrdImageIO")
    reader.ReadImageInformation()
    _check_size(reader.GetSize(), path)
    image = reader.Execute()
    raw = SimpleITK.GetArrayFromImage(image)
    components = image.GetNumberOfComponentsPerPixel()
    if components in (3, 4) and raw.dtype == np.uint8:
        voxels: NDArray[Any] = _colour_grid(np.moveaxis(raw[..., :3].T, 0, -1), path)
    elif components == 1:
        voxels = _grey_grid(raw.T, path)
    else:
        raise ImageError(f"{path.name} holds {components} values per voxel; one, or 8-bit RGB, is expected.")
    affine = sitk_affine(image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    return Volume(voxels, affine, modality or guess_modality(voxels))


def itk_reader(path: Path) -> Any:
    """A SimpleITK reader of `path`; untyped, since SimpleITK carries no annotations."""
    make: Any = SimpleITK.ImageFileReader
    reader = make()
    reader.SetFileName(str(path))
    return reader


def guess_modality(voxels: NDArray[Any]) -> str | None:
    """CT for grey voxels that reach the HU of air, else None: files other than DICOM do not name their
    modality.
    """
    return "CT" if voxels.ndim == 3 and float(voxels.min()) <= CT_AIR_HU else None


def sitk_affine(
    origin: tuple[float, ...], spacing: tuple[float, ...], direction: tuple[float, ...]
) -> NDArray[np.float64]:
    """RAS affine [4, 4] of SimpleITK's geometry (LPS), 2-D completed by a unit slice axis, more than 3-D cut
    to 3-D.
    """
    n = len(origin)
    d = min(n, 3)
    lps = np.eye(4)
    lps[:d, :d] = (np.asarray(direction, float).reshape(n, n) * np.asarray(spacing, float))[:d, :d]
    lps[:d, 3] = origin[:d]
    return np.asarray(LPS_TO_RAS @ lps)


def refuse_detached(path: Path) -> None:
    """An NRRD header may name any file as its data; uploads must not read other files through it."""
    with path.open("rb") as stream:
        start = stream.read(1 << 20)
    header = start.split(b"\n\n", 1)[0].split(b"\r\n\r\n", 1)[0]
    fields = [
        line.split(b":", 1)[0].strip().lower().replace(b" ", b"")
        for line in header.splitlines()
        if b":" in line
    ]
    if b"datafile" in fields or len(header) == 1 << 20:  # one that is longer could name a file further down
        raise ImageError(
            f"{path.name} keeps its voxels in another file; an NRRD file with its data attached is expected."
        )


def _gunzip(data: bytes, path: Path) -> bytes:
    """Inflate, but never much beyond the largest volume that would be accepted."""
    limit = MAX_VOXELS * 8 + 4096
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        inflated = stream.read(limit)
    if len(inflated) == limit:
        raise ImageError(f"{path.name} inflates to more than {limit} bytes; a smaller image is expected.")
    return inflated


def _check_size(shape: tuple[int, ...], path: Path) -> None:
    if len(shape) < 2 or any(int(n) < 1 for n in shape):
        raise ImageError(
            f"{path.name} has shape {tuple(shape)}; two or three axes of at least one voxel are expected."
        )
    if int(np.prod([int(n) for n in shape], dtype=object)) > MAX_VOXELS:
        raise ImageError(
            f"{path.name} claims shape {tuple(shape)}; at most {MAX_VOXELS} voxels are expected."
        )


def _grey_grid(raw: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """[X, Y(, Z(, 1...))] -> [X, Y, Z] float32."""
    if raw.dtype.kind not in "biuf":
        raise ImageError(f"{path.name} holds values of type {raw.dtype}; real numbers are expected.")
    return np.asarray(_three_axes(raw.shape, raw, path), np.float32)


def _colour_grid(raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """[X, Y(, Z(, 1...)), 3] -> [X, Y, Z, 3] uint8."""
    return np.asarray(_three_axes(raw.shape[:-1], raw, path, (3,)), np.uint8)


def _three_axes(
    shape: tuple[int, ...], raw: NDArray[Any], path: Path, tail: tuple[int, ...] = ()
) -> NDArray[Any]:
    if any(n != 1 for n in shape[3:]):
        raise ImageError(
            f"{path.name} has shape {tuple(raw.shape)}; one 3-D image is expected, without time points."
        )
    return raw.reshape((*shape, 1)[:3] + tail)
