"""The demo's images: three that installed packages carry, and one body that is computed and so has exact masks.

The same body is written as a DICOM study, for OHIF.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray

from medsegr.errors import ImageError
from medsegr.phantom.study import write_series
from medsegr.phantom.torso import Torso, make_torso

SHIPPED = (
    ("skimage", "data/retina.jpg"),
    ("skimage", "data/ihc.png"),
    ("pydicom", "data/test_files/CT_small.dcm"),
)
TORSO = "torso.nii.gz"
SEED = 7


@dataclass(frozen=True, eq=False)
class Studies:
    """A folder of images for the server, and the body behind one of them."""

    folder: Path
    torso: Torso

    def path(self, image: str) -> Path:
        """The file behind an image id; the id is its name up to the first dot."""
        return next(path for path in sorted(self.folder.iterdir()) if path.name.split(".")[0] == image)

    def truth(self, *organs: str) -> NDArray[np.bool_]:
        """Exact mask [X, Y, Z] of these organs together."""
        return np.logical_or.reduce([self.torso.mask(organ) for organ in organs])


def prepare(folder: Path) -> Studies:
    """Fill `folder` with the demo's images."""
    folder.mkdir(parents=True)
    for package, name in SHIPPED:
        try:
            with as_file(files(package) / name) as path:
                shutil.copyfile(path, folder / path.name)
        except FileNotFoundError as error:
            raise ImageError(
                f"The installed package {package} lacks {name}; expected it in its wheel."
            ) from error
    torso = make_torso(SEED)
    nib.save(nib.Nifti1Image(torso.hu, torso.volume.affine), folder / TORSO)
    return Studies(folder, torso)


def write_dicom(torso: Torso, folder: Path) -> str:
    """Write the body as a CT series into `folder` and return its StudyInstanceUID."""
    first = write_series(torso, folder)[0]
    return str(pydicom.dcmread(first, stop_before_pixels=True).StudyInstanceUID)
