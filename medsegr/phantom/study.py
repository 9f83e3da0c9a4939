"""Write a phantom as what hospitals and researchers keep: a DICOM CT series, or NIfTI image and labels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from medsegr.imaging.writing import write_label_map
from medsegr.phantom.torso import Torso

RESCALE_INTERCEPT = -1024
DATE, TIME = "20240101", "120000"
IMPLEMENTATION_UID = UID("2.25.289142760318370713470423816934201337061")


def derived_uid(*parts: object) -> UID:
    """A valid UID that depends on `parts` only: a UUID-style number under 2.25 (PS3.5 B.2) from their SHA-256."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def write_series(
    torso: Torso, folder: Path | str, *, patient_id: str | None = None, series_number: int = 1
) -> list[Path]:
    """Write `torso` as a CT series, one file a slice from the feet upwards, and return the paths in that order.

    All identifiers follow from seed, grid and arguments, so writing twice gives the same files. The patient is
    `PHANTOM-<seed>` unless named otherwise; the study carries an explicit 40/400 HU window.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    patient = patient_id or f"PHANTOM-{torso.seed}"
    study = derived_uid("study", torso.seed, patient)
    series = derived_uid(
        "series", torso.seed, patient, series_number, torso.volume.shape, torso.volume.spacing_mm
    )
    paths = []
    for k in range(torso.volume.n_slices):
        dataset = _slice(torso, k, derived_uid(series, k))
        dataset.PatientID, dataset.PatientName = patient, "Phantom^Torso"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID = derived_uid("frame", torso.seed, patient)
        dataset.StudyID, dataset.SeriesNumber = str(torso.seed), series_number
        path = folder / f"slice_{k + 1:04d}.dcm"
        dataset.save_as(path, write_like_original=False)
        paths.append(path)
    return paths


def write_nifti(torso: Torso, image: Path | str, labels: Path | str | None = None) -> None:
    """Write the image (int16 HU) and, if asked, its label map (uint8), both as `.nii.gz` on the same grid."""
    build: Any = nib.Nifti1Image
    nifti = build(torso.hu, torso.volume.affine)
    nifti.set_sform(torso.volume.affine, code=1)
    nifti.set_qform(torso.volume.affine, code=1)
    nib.save(nifti, Path(image))
    if labels is not None:
        write_label_map(labels, torso.labels, torso.volume, Path(image))


def _slice(torso: Torso, k: int, uid: UID) -> FileDataset:
    """Slice `k` with everything that CT Image Storage asks of image, plane and equipment (PS3.3 A.3)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, uid
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, IMPLEMENTATION_UID
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid
    for event in ("Study", "Series", "Content", "Acquisition"):
        setattr(dataset, f"{event}Date", DATE)
        setattr(dataset, f"{event}Time", TIME)
    dataset.Modality, dataset.Manufacturer = "CT", "medsegr phantom"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.PatientBirthDate = ""
    dataset.PatientSex, dataset.PatientPosition, dataset.PositionReferenceIndicator = "O", "HFS", ""
    dataset.StudyDescription, dataset.SeriesDescription = "Torso phantom", "Portal venous phantom"
    dataset.BodyPartExamined, dataset.KVP = "ABDOMEN", "120"
    dataset.InstanceNumber, dataset.AcquisitionNumber = k + 1, 1
    _place(dataset, torso, k)
    stored = (torso.hu[:, :, k].T.astype(np.int32) - RESCALE_INTERCEPT).astype(np.uint16)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(RESCALE_INTERCEPT), "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.PixelData = stored.astype("<u2").tobytes()
    return dataset


def _place(dataset: FileDataset, torso: Torso, k: int) -> None:
    """Position, orientation and spacing: X of the volume runs along the rows, Y down the columns."""
    column, row, slice_gap = torso.volume.spacing_mm
    corner = (torso.volume.affine @ (0, 0, k, 1))[:3] * (-1, -1, 1)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [f"{value:.4f}" for value in corner]
    dataset.SliceLocation = f"{corner[2]:.4f}"
    dataset.PixelSpacing = [f"{row:.6g}", f"{column:.6g}"]
    dataset.SliceThickness = f"{slice_gap:.6g}"
