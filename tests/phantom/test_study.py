"""Phantom files: what was written is read back by pydicom, ITK, nibabel and our own reader, voxel for voxel."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import UID

from medsegr.imaging import Picture, Volume, read_image
from medsegr.phantom import Torso, make_torso, write_multiframe, write_nifti, write_radiograph, write_series
from medsegr.phantom.study import derived_uid


@pytest.fixture(scope="module")
def torso() -> Torso:
    return make_torso(seed=5, shape=(44, 40, 12), spacing_mm=(8.0, 9.0, 25.0))


def test_our_reader_returns_the_phantom(torso: Torso, tmp_path: Path) -> None:
    paths = write_series(torso, tmp_path / "ct")
    assert len(paths) == 12 and all(path.exists() for path in paths)
    volume = read_image(tmp_path / "ct")
    assert isinstance(volume, Volume)
    np.testing.assert_array_equal(volume.voxels, torso.volume.voxels)
    np.testing.assert_allclose(volume.affine, torso.volume.affine, atol=1e-3)
    assert (volume.modality, volume.body_part) == ("CT", "ABDOMEN")


def test_itk_returns_the_phantom(torso: Torso, tmp_path: Path) -> None:
    write_series(torso, tmp_path / "ct")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    image = reader.Execute()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, torso.hu)
    assert image.GetSpacing() == pytest.approx((8.0, 9.0, 25.0))
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert image.GetOrigin() == pytest.approx((-172.0, -175.5, 0.0))  # -(44 - 1) / 2 * 8, -(40 - 1) / 2 * 9


def test_headers(torso: Torso, tmp_path: Path) -> None:
    headers = [pydicom.dcmread(path) for path in write_series(torso, tmp_path)]
    first = headers[0]
    assert (first.PatientID, str(first.PatientName)) == ("PHANTOM-5", "Phantom^Torso")
    assert (first.RescaleIntercept, first.RescaleSlope) == (-1024, 1)
    assert (first.WindowCenter, first.WindowWidth) == (40, 400)
    assert first.SOPClassUID == first.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert list(first.PixelSpacing) == [9.0, 8.0]  # (row, column)
    for key in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({getattr(header, key) for header in headers}) == 1
    uids = [header.SOPInstanceUID for header in headers]
    assert len(set(uids)) == 12 and all(UID(uid).is_valid and len(uid) <= 64 for uid in uids)
    assert [header.file_meta.MediaStorageSOPInstanceUID for header in headers] == uids


def test_one_file_of_frames_is_the_same_phantom(torso: Torso, tmp_path: Path) -> None:
    volume = read_image(write_multiframe(torso, tmp_path / "ct.dcm"))
    assert isinstance(volume, Volume) and (volume.modality, volume.body_part) == ("CT", "ABDOMEN")
    np.testing.assert_array_equal(volume.voxels, torso.volume.voxels)
    np.testing.assert_allclose(volume.affine, torso.volume.affine, atol=1e-3)


def test_a_radiograph_shows_lungs_dark_and_spine_bright(torso: Torso, tmp_path: Path) -> None:
    picture = read_image(write_radiograph(torso, tmp_path / "cr.dcm"))
    assert isinstance(picture, Picture) and picture.modality == "XR" and picture.spacing_mm == (8.0, 8.0)
    assert picture.pixels.shape == (round(12 * 25 / 8), 44)
    lungs = torso.mask("right lung").any(axis=1).T[::-1]  # [Z, X], the head on top
    rows, columns = np.nonzero(lungs)
    lung = picture.pixels[round(rows.mean() * 25 / 8), round(columns.mean())]
    spine = picture.pixels[-5, 22]
    assert columns.mean() < 22 and lung < spine  # the patient's right is on the left of the picture


def test_writing_twice_gives_the_same_files(torso: Torso, tmp_path: Path) -> None:
    one, two = write_series(torso, tmp_path / "one"), write_series(torso, tmp_path / "two")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    other = write_series(torso, tmp_path / "other", patient_id="P2", series_number=4)
    header, first = pydicom.dcmread(other[0]), pydicom.dcmread(one[0])
    assert header.PatientID == "P2" and header.SeriesNumber == 4
    assert header.StudyInstanceUID != first.StudyInstanceUID


def test_derived_uids_are_valid_and_depend_on_their_parts() -> None:
    assert derived_uid("a", 1) == derived_uid("a", 1) != derived_uid("a", 2)
    assert derived_uid("a", 1).is_valid and derived_uid("a").startswith("2.25.")


def test_nifti_image_and_labels_share_their_grid(torso: Torso, tmp_path: Path) -> None:
    write_nifti(torso, tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz")
    image, labels = nib.load(tmp_path / "image.nii.gz"), nib.load(tmp_path / "labels.nii.gz")
    assert image.get_data_dtype() == np.int16 and labels.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), torso.hu)
    np.testing.assert_array_equal(np.asarray(labels.dataobj), torso.labels)
    np.testing.assert_allclose(image.affine, labels.affine)
    volume = read_image(tmp_path / "image.nii.gz")
    assert isinstance(volume, Volume) and volume.modality == "CT"
