"""A series as one file for stock clients, made once and kept beside the series' files in the cache."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.openers import Opener
from numpy.typing import NDArray

from medsegr.dicom.cache import CachedSeries
from medsegr.imaging.dicom_reading import read_stack
from medsegr.imaging.dicom_series import stacks
from medsegr.imaging.types import Picture
from medsegr.web.errors import Refusal

NAME = "image.nii.gz"
Opener.default_compresslevel = 1  # the file is read once; a higher level takes longer than the download


def nifti_of(series: CachedSeries) -> Path:
    """A NIfTI of the largest stack, or the DICOM file itself where that is a picture; raises `Refusal` 422, `ImageError`."""
    made = series.home / NAME
    if made.is_file():
        return made
    found = stacks(series.files)
    if not found:
        raise Refusal(422, "This series holds no image that can be read.")
    image = read_stack(found[0])
    if isinstance(image, Picture):
        return found[0].paths[0].resolve()
    with tempfile.TemporaryDirectory(dir=series.home, ignore_cleanup_errors=True) as folder:
        whole = Path(folder) / NAME
        nib.save(nib.Nifti1Image(_stored(image.voxels), image.affine), whole)
        whole.replace(made)
    return made


def _stored(voxels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Whole numbers as 16 bit where they fit, colours as NIfTI's RGB."""
    if voxels.ndim == 4:
        rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        return np.ascontiguousarray(voxels).view(rgb)[..., 0]
    whole = voxels.astype(np.int16)
    return whole if np.array_equal(whole, voxels) else voxels
