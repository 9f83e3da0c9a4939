"""DICOM studies on disk whose every pixel is known: what OHIF must show of a mask follows from the files alone.

All carry the same kind of drawing, lopsided in rows, columns and slices so that no flip, turn or swap of slices
goes unseen, in the grey values that `seeing_predictor` understands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

from medsegr.phantom.study import derived_uid
from tests.system.seeing_predictor import seen

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "XC": "1.2.840.10008.5.1.4.1.1.77.1.4",
    "enhanced CT": "1.2.840.10008.5.1.4.1.1.2.1",
    "US frames": "1.2.840.10008.5.1.4.1.1.3.1",
}
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
TILT = np.radians(25)
OBLIQUE = (np.cos(TILT), np.sin(TILT), 0.0, -np.sin(TILT) * np.cos(TILT), np.cos(TILT) ** 2, np.sin(TILT))
SPACING = (1.5, 1.25)
"""(row, column) in mm."""

PLACE = (
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "SliceLocation",
    "InstanceNumber",
    "FrameOfReferenceUID",
    "WindowCenter",
    "WindowWidth",
    "BodyPartExamined",
)
"""What a careless export leaves out."""

Plane = tuple[str, int]
"""(SOPInstanceUID, frame from 1): the name of one image."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One image: its grey values [rows, columns] (after rescale; red of a colour image) and its position, if any."""

    sop: str
    frame: int
    values: NDArray[Any]
    position: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Series:
    """A series on disk."""

    uid: str
    modality: str
    images: tuple[Shown, ...]
    paths: tuple[Path, ...]

    def expected(self, label: str) -> dict[Plane, NDArray[np.bool_]]:
        """{(SOPInstanceUID, frame): [rows, columns] bool} of an organ."""
        return {(image.sop, image.frame): seen(image.values, label) for image in self.images}


@dataclass(frozen=True, eq=False)
class Study:
    """A study on disk."""

    uid: str
    series: tuple[Series, ...]

    @property
    def paths(self) -> list[Path]:
        return [path for series in self.series for path in series.paths]


def drawing(rows: int, columns: int, place: float, seed: int = 0) -> NDArray[np.uint8]:
    """[rows, columns] uint8: a liver with a gallbladder in it, and a spleen; `place` in [0, 1] along the stack.

    The organs move and shrink with `place`; the liver is missing near its end, the spleen near its beginning.
    """
    y, x = np.mgrid[:rows, :columns] / np.array([rows, columns]).reshape(2, 1, 1)
    image = np.random.default_rng(seed).integers(0, 40, (rows, columns)).astype(np.uint8)
    if place < 0.8:
        liver = (x > 0.1) & (y > 0.2) & (x + 2 * y < 1.3 - 0.4 * place)
        image[liver] = 170
        image[(np.hypot(x - 0.25, y - 0.3) < 0.08) & liver] = 220
    if place > 0.2:
        image[(np.hypot(1.6 * (x - 0.75), y - 0.45 - 0.3 * place) < 0.12)] = 120
    return image


def axial_ct(folder: Path, n: int = 12) -> Study:
    """Feet to head, in the order of their numbers."""
    return _sliced(folder, "axial CT", "CT", AXIAL, n)


def reversed_ct(folder: Path, n: int = 10) -> Study:
    """Instance numbers and file names run against the positions."""
    return _sliced(folder, "reversed CT", "CT", AXIAL, n, numbering=range(n, 0, -1))


def shuffled_ct(folder: Path, n: int = 8) -> Study:
    """Instance numbers have nothing to do with the positions."""
    return _sliced(
        folder,
        "shuffled CT",
        "CT",
        AXIAL,
        n,
        numbering=[int(k) + 1 for k in np.random.default_rng(3).permutation(n)],
    )


def sagittal_mr(folder: Path, n: int = 9) -> Study:
    """Rows run to the feet, columns to the back."""
    return _sliced(folder, "sagittal MR", "MR", SAGITTAL, n, gap_mm=4.0, BodyPartExamined="HEAD")


def oblique_mr(folder: Path, n: int = 9) -> Study:
    """Planes parallel to no side of the body."""
    return _sliced(folder, "oblique MR", "MR", OBLIQUE, n, gap_mm=4.0)


def large_ct(folder: Path, rows: int = 512, columns: int = 512, n: int = 1) -> Study:
    """One slice of the usual size of CT."""
    return _sliced(folder, "large CT", "CT", AXIAL, n, size=(rows, columns))


def untagged_ct(folder: Path, n: int = 6) -> Study:
    """Spacing, positions, orientation, thickness and instance numbers are missing."""
    study = _sliced(folder, "untagged CT", "CT", AXIAL, n)
    for path in study.paths:
        strip(path)
    bare = tuple(
        Shown(image.sop, image.frame, image.values) for series in study.series for image in series.images
    )
    return Study(study.uid, tuple(Series(s.uid, s.modality, bare, s.paths) for s in study.series[:1]))


def single_cr(folder: Path) -> Study:
    """One radiograph with a detector's spacing and no position."""
    return _pictures(
        folder, "CR", [drawing(120, 96, 0.5)], ImagerPixelSpacing=list(SPACING), ViewPosition="PA"
    )


def two_views(folder: Path) -> Study:
    """Two radiographs of different size in one series."""
    views = [drawing(120, 96, 0.5, 1), drawing(100, 110, 0.3, 2)]
    return _pictures(folder, "CR", views, ImagerPixelSpacing=list(SPACING))


def colour_photograph(folder: Path) -> Study:
    """One RGB image; the organs are in its red channel."""
    return _pictures(folder, "XC", [_coloured(drawing(90, 112, 0.5))])


def multi_frame_us(folder: Path, n: int = 5) -> Study:
    """A grey ultrasound clip in one file, without positions."""
    values = np.stack([drawing(84, 100, k / (n - 1), k) for k in range(n)])
    return _one_file(folder, "US frames", "US", values)


def enhanced_ct(folder: Path, n: int = 7) -> Study:
    """A CT in one file; its frames run from head to feet."""
    values = np.stack([drawing(72, 88, k / (n - 1), k) for k in range(n)])
    positions = [(-60.0, -50.0, 100.0 - 3.0 * k) for k in range(n)]
    return _one_file(folder, "enhanced CT", "CT", values, positions)


def _sliced(
    folder: Path,
    name: str,
    modality: str,
    cosines: Sequence[float],
    n: int,
    *,
    size: tuple[int, int] = (72, 88),
    gap_mm: float = 2.5,
    numbering: Iterable[int] | None = None,
    **attributes: Any,
) -> Study:
    """One file a slice along the normal of `cosines`."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(cosines[:3], cosines[3:])
    study, series = derived_uid("system study", name), derived_uid("system series", name)
    numbers = list(numbering) if numbering else list(range(1, n + 1))
    images, paths = [], []
    for k in range(n):
        values = drawing(*size, k / max(n - 1, 1), k)
        position = np.array([-60.0, -50.0, 30.0]) + k * gap_mm * normal
        dataset = _dataset(modality, modality, values, study, series, derived_uid(series, k), name)
        dataset.ImageOrientationPatient = [f"{c:.8f}" for c in cosines]
        dataset.ImagePositionPatient = [f"{p:.6f}" for p in position]
        dataset.FrameOfReferenceUID = derived_uid("system frame", name)
        dataset.PixelSpacing, dataset.SliceThickness = list(SPACING), gap_mm
        dataset.InstanceNumber = numbers[k]
        if modality == "CT":
            dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
        for key, value in attributes.items():
            setattr(dataset, key, value)
        paths.append(_save(dataset, folder / f"{numbers[k]:03d}.dcm"))
        images.append(Shown(str(dataset.SOPInstanceUID), 1, values, tuple(float(p) for p in position)))
    return Study(str(study), (Series(str(series), modality, tuple(images), tuple(paths)),))


def _pictures(folder: Path, modality: str, pixels: list[NDArray[np.uint8]], **attributes: Any) -> Study:
    """Single images of one series, without positions."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{len(pixels)} {modality}"
    study, series = derived_uid("system study", name), derived_uid("system series", name)
    images, paths = [], []
    for k, values in enumerate(pixels):
        dataset = _dataset(modality, modality, values, study, series, derived_uid(series, k), name)
        dataset.InstanceNumber = k + 1
        for key, value in attributes.items():
            setattr(dataset, key, value)
        paths.append(_save(dataset, folder / f"{k + 1:03d}.dcm"))
        red = values if values.ndim == 2 else values[..., 0]
        images.append(Shown(str(dataset.SOPInstanceUID), 1, red))
    return Study(str(study), (Series(str(series), modality, tuple(images), tuple(paths)),))


def _one_file(
    folder: Path,
    kind: str,
    modality: str,
    values: NDArray[np.uint8],
    positions: Sequence[tuple[float, float, float]] | None = None,
) -> Study:
    """All frames [F, rows, columns] in one file; with positions also the functional groups of enhanced objects."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series = derived_uid("system study", kind), derived_uid("system series", kind)
    dataset = _dataset(kind, modality, values, study, series, derived_uid(series, 0), kind)
    dataset.InstanceNumber = 1
    if positions:
        dataset.FrameOfReferenceUID = derived_uid("system frame", kind)
        shared = Dataset()
        shared.PixelMeasuresSequence = _item(PixelSpacing=list(SPACING), SliceThickness=3.0)
        shared.PlaneOrientationSequence = _item(ImageOrientationPatient=list(AXIAL))
        shared.PixelValueTransformationSequence = _item(RescaleIntercept=0, RescaleSlope=1, RescaleType="HU")
        dataset.SharedFunctionalGroupsSequence = Items([shared])
        dataset.PerFrameFunctionalGroupsSequence = Items(
            [_with(PlanePositionSequence=_item(ImagePositionPatient=list(p))) for p in positions]
        )
    else:
        dataset.FrameTime = 40
    path = _save(dataset, folder / "frames.dcm")
    sop = str(dataset.SOPInstanceUID)
    places = list(positions) if positions else [None] * len(values)
    images = tuple(Shown(sop, k + 1, plane, places[k]) for k, plane in enumerate(values))
    return Study(str(study), (Series(str(series), modality, images, (path,)),))


def _dataset(
    kind: str, modality: str, values: NDArray[np.uint8], study: UID, series: UID, sop: UID, name: str
) -> FileDataset:
    """Patient, study, equipment and pixels; [rows, columns], [rows, columns, 3] or [frames, rows, columns]."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(CLASSES[kind]), sop
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, sop
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientID, dataset.PatientName = f"SYSTEM-{name}", f"System^{name}"
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240101", "120000", "1"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = dataset.SeriesDescription = name
    dataset.SeriesNumber, dataset.Modality, dataset.Manufacturer = 1, modality, "medsegr tests"
    dataset.BodyPartExamined = "ABDOMEN"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    colour = values.ndim == 3 and values.shape[-1] == 3
    frames = values.ndim == 3 and not colour
    if frames:
        dataset.NumberOfFrames = len(values)
    dataset.Rows, dataset.Columns = values.shape[1:] if frames else values.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        dataset.PlanarConfiguration = 0
    else:
        dataset.WindowCenter, dataset.WindowWidth = 128, 256
    wide = modality in ("CT", "MR")
    stored = values.astype("<u2") if wide else values
    dataset.BitsAllocated = dataset.BitsStored = 16 if wide else 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    return dataset


def _coloured(red: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] -> [H, W, 3] with other values in green and blue."""
    return np.stack([red, 255 - red, np.full_like(red, 30)], axis=-1)


def _save(dataset: FileDataset, path: Path) -> Path:
    dataset.save_as(path, write_like_original=False)
    return path


def strip(path: Path, keep: Iterable[str] = ()) -> None:
    """Take everything from a file that tells where its image lies, but for what is to be kept."""
    dataset = dcmread(path)
    for key in PLACE:
        if key in dataset and key not in keep:
            delattr(dataset, key)
    dataset.save_as(path, write_like_original=False)


def _with(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for key, value in attributes.items():
        setattr(dataset, key, value)
    return dataset


def _item(**attributes: Any) -> Items:
    return Items([_with(**attributes)])
