"""Small DICOM files for the tests, written with pydicom from nothing but arrays and attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def dicom_image(stored: NDArray[Any], modality: str, **attributes: Any) -> FileDataset:
    """A data set around `stored` ([H, W] or [F, H, W]; with SamplesPerPixel=3 [..., 3])."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID(CT_CLASS if modality == "CT" else SECONDARY_CAPTURE)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "1.2.3"
    dataset.Modality = modality
    colour = attributes.get("SamplesPerPixel", 1) == 3
    grid = stored.shape[:-1] if colour else stored.shape
    if len(grid) == 3:
        dataset.NumberOfFrames = grid[0]
    dataset.Rows, dataset.Columns = grid[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for key, value in attributes.items():
        setattr(dataset, key, value)
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    return dataset


def save(dataset: FileDataset, path: Path) -> Path:
    """Write with preamble and meta header."""
    dataset.save_as(path, write_like_original=False)
    return path


def write_ct_series(
    folder: Path,
    stored: NDArray[np.int16],
    *,
    cosines: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    origin: tuple[float, float, float] = (-10.0, -20.0, 30.0),
    spacing: tuple[float, float] = (0.8, 0.5),
    gap: float = 2.5,
    numbering: list[int] | None = None,
    **attributes: Any,
) -> list[Path]:
    """Slices [N, H, W] along the normal; `numbering` gives each its file name and instance number."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(cosines[:3], cosines[3:])
    paths = []
    for place, plane in enumerate(stored):
        number = numbering[place] if numbering else place + 1
        dataset = dicom_image(
            plane,
            "CT",
            PixelSpacing=list(spacing),
            SliceThickness=gap,
            ImageOrientationPatient=[f"{c:.10f}" for c in cosines],
            ImagePositionPatient=[f"{v:.8f}" for v in np.asarray(origin) + place * gap * normal],
            InstanceNumber=number,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            **attributes,
        )
        paths.append(save(dataset, folder / f"{number:03d}.dcm"))
    return paths
