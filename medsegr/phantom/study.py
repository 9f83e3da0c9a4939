"""Write a phantom as what hospitals and researchers keep: a DICOM CT series, a multi-frame CT, a radiograph, or NIfTI image
and labels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
)
from scipy import ndimage

from medsegr.imaging.writing import write_label_map
from medsegr.phantom.torso import Torso

RESCALE_INTERCEPT = -1024
DATE, TIME = "20240101", "120000"
AXIAL = [1, 0, 0, 0, 1, 0]
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
    series = _Series.of(torso, patient_id, series_number)
    paths = []
    for k in range(torso.volume.n_slices):
        dataset = _slice(torso, k, derived_uid(series.uid, k))
        series.name(dataset)
        paths.append(_save(dataset, folder / f"slice_{k + 1:04d}.dcm"))
    return paths


def write_multiframe(
    torso: Torso, path: Path | str, *, patient_id: str | None = None, series_number: int = 2
) -> Path:
    """Write `torso` as one Enhanced CT file of the same study, its frames from the feet upwards; returns the path."""
    series = _Series.of(torso, patient_id, series_number)
    stored = np.ascontiguousarray(_stored(torso.hu).transpose(2, 1, 0))  # [frame, row, column]
    dataset = _blank(EnhancedCTImageStorage, "CT", derived_uid(series.uid, 0), stored)
    dataset.NumberOfFrames, dataset.InstanceNumber = len(stored), 1
    column, row, slice_gap = torso.volume.spacing_mm
    shared = Dataset()
    shared.PixelMeasuresSequence = _item(
        PixelSpacing=[f"{row:.6g}", f"{column:.6g}"], SliceThickness=f"{slice_gap:.6g}"
    )
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=AXIAL)
    shared.PixelValueTransformationSequence = _item(
        RescaleIntercept=str(RESCALE_INTERCEPT), RescaleSlope="1", RescaleType="HU"
    )
    shared.FrameVOILUTSequence = _item(WindowCenter="40", WindowWidth="400")
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    places = [[f"{value:.4f}" for value in _corner(torso, k)] for k in range(len(stored))]
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [_dataset(PlanePositionSequence=_item(ImagePositionPatient=place)) for place in places]
    )
    series.name(dataset)
    return _save(dataset, Path(path))


def write_radiograph(
    torso: Torso, path: Path | str, *, patient_id: str | None = None, series_number: int = 3
) -> Path:
    """Write a frontal radiograph of `torso` (mean attenuation from front to back, square pixels); returns the path.

    Row 0 is at the head and column 0 at the patient's right; like a film it knows no position in the patient.
    """
    series = _Series.of(torso, patient_id, series_number)
    column, _, slice_gap = torso.volume.spacing_mm
    attenuation = np.maximum(torso.volume.voxels.astype(np.float32) + 1000, 0).mean(axis=1).T[::-1]
    square = ndimage.zoom(attenuation, (slice_gap / column, 1), order=1)
    stored = np.rint((square - square.min()) * (4095 / max(float(np.ptp(square)), 1e-6))).astype(np.uint16)
    dataset = _blank(ComputedRadiographyImageStorage, "CR", derived_uid(series.uid, 0), stored)
    dataset.BodyPartExamined, dataset.ViewPosition, dataset.InstanceNumber = "CHEST", "AP", 1
    dataset.ImagerPixelSpacing = [f"{column:.6g}", f"{column:.6g}"]
    dataset.WindowCenter, dataset.WindowWidth = "2048", "4096"
    series.name(dataset)
    return _save(dataset, Path(path))


def write_nifti(torso: Torso, image: Path | str, labels: Path | str | None = None) -> None:
    """Write the image (int16 HU) and, if asked, its label map (uint8), both as `.nii.gz` on the same grid."""
    build: Any = nib.Nifti1Image
    nifti = build(torso.hu, torso.volume.affine)
    nifti.set_sform(torso.volume.affine, code=1)
    nifti.set_qform(torso.volume.affine, code=1)
    nib.save(nifti, Path(image))
    if labels is not None:
        write_label_map(labels, torso.labels, torso.volume, Path(image))


@dataclass(frozen=True)
class _Series:
    """What all files of a series have in common."""

    torso: Torso
    patient: str
    number: int
    uid: UID

    @classmethod
    def of(cls, torso: Torso, patient_id: str | None, number: int) -> _Series:
        patient = patient_id or f"PHANTOM-{torso.seed}"
        uid = derived_uid("series", torso.seed, patient, number, torso.volume.shape, torso.volume.spacing_mm)
        return cls(torso, patient, number, uid)

    def name(self, dataset: Dataset) -> None:
        """Give `dataset` its place in the patient, the study and the series."""
        seed = self.torso.seed
        dataset.PatientID, dataset.PatientName = self.patient, "Phantom^Torso"
        dataset.StudyInstanceUID = derived_uid("study", seed, self.patient)
        dataset.SeriesInstanceUID, dataset.SeriesNumber = self.uid, self.number
        dataset.FrameOfReferenceUID = derived_uid("frame", seed, self.patient)
        dataset.StudyID = str(seed)


def _slice(torso: Torso, k: int, uid: UID) -> FileDataset:
    """Slice `k` with everything that CT Image Storage asks of image, plane and equipment (PS3.3 A.3)."""
    dataset = _blank(CTImageStorage, "CT", uid, _stored(torso.hu[:, :, k]).T)
    dataset.InstanceNumber, dataset.AcquisitionNumber, dataset.KVP = k + 1, 1, "120"
    _place(dataset, torso, k)
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(RESCALE_INTERCEPT), "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    return dataset


def _stored(hu: NDArray[np.int16]) -> NDArray[np.uint16]:
    return (hu.astype(np.int32) - RESCALE_INTERCEPT).astype(np.uint16)


def _blank(storage: UID, modality: str, uid: UID, stored: NDArray[np.uint16]) -> FileDataset:
    """A grey image of `stored` [rows, columns] or [frames, rows, columns], 12 bits, without a place."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = storage, uid
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, IMPLEMENTATION_UID
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"] if modality == "CT" else ["DERIVED", "SECONDARY"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = storage, uid
    for event in ("Study", "Series", "Content", "Acquisition"):
        setattr(dataset, f"{event}Date", DATE)
        setattr(dataset, f"{event}Time", TIME)
    dataset.Modality, dataset.Manufacturer = modality, "medsegr phantom"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.PatientBirthDate = ""
    dataset.PatientSex, dataset.PatientPosition, dataset.PositionReferenceIndicator = "O", "HFS", ""
    dataset.StudyDescription, dataset.SeriesDescription = "Torso phantom", "Portal venous phantom"
    dataset.BodyPartExamined = "ABDOMEN"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = stored.astype("<u2").tobytes()
    return dataset


def _place(dataset: FileDataset, torso: Torso, k: int) -> None:
    """Position, orientation and spacing: X of the volume runs along the rows, Y down the columns."""
    column, row, slice_gap = torso.volume.spacing_mm
    corner = _corner(torso, k)
    dataset.ImageOrientationPatient = AXIAL
    dataset.ImagePositionPatient = [f"{value:.4f}" for value in corner]
    dataset.SliceLocation = f"{corner[2]:.4f}"
    dataset.PixelSpacing = [f"{row:.6g}", f"{column:.6g}"]
    dataset.SliceThickness = f"{slice_gap:.6g}"


def _corner(torso: Torso, k: int) -> tuple[float, float, float]:
    """LPS millimetres of the first pixel of slice `k`."""
    x, y, z = (torso.volume.affine @ (0, 0, k, 1))[:3]
    return float(-x), float(-y), float(z)


def _dataset(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for key, value in attributes.items():
        setattr(dataset, key, value)
    return dataset


def _item(**attributes: Any) -> Sequence:
    return Sequence([_dataset(**attributes)])


def _save(dataset: FileDataset, path: Path) -> Path:
    dataset.save_as(path, write_like_original=False)
    return path
