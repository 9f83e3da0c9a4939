"""A written label map has exactly the grid of the image it belongs to, as ITK and nibabel see it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from dicom_factory import dicom_image, save, write_ct_series
from numpy.typing import NDArray
from PIL import Image

from medsegr.errors import ImageError
from medsegr.imaging import Picture, Volume, read_image, write_label_map

ANGLES = np.deg2rad([12.0, -25.0, 40.0])


def _turn() -> NDArray[np.float64]:
    (cx, cy, cz), (sx, sy, sz) = np.cos(ANGLES), np.sin(ANGLES)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _same_grid(one: SimpleITK.Image, other: SimpleITK.Image) -> None:
    assert one.GetSize() == other.GetSize()
    np.testing.assert_allclose(one.GetOrigin(), other.GetOrigin(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.GetSpacing(), other.GetSpacing(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.GetDirection(), other.GetDirection(), rtol=0, atol=1e-9)


def _labels(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 4, shape).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".nii"])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (2, 1), (0, 0)])
def test_oblique_nifti(tmp_path: Path, suffix: str, codes: tuple[int, int]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = _turn() @ np.diag([0.7, -0.9, 3.3])
    affine[:3, 3] = (-31.5, 12.25, 99.75)
    image = nib.Nifti1Image(np.random.default_rng(1).normal(size=(5, 6, 7)).astype(np.float32), affine)
    image.set_sform(affine, code=codes[0])
    image.set_qform(affine, code=codes[1])
    source = tmp_path / "image.nii.gz"
    nib.save(image, source)
    volume = read_image(source)
    assert isinstance(volume, Volume)
    labels = _labels(volume.shape)
    write_label_map(tmp_path / f"mask{suffix}", labels, volume, source)
    mask = SimpleITK.ReadImage(str(tmp_path / f"mask{suffix}"))
    _same_grid(mask, SimpleITK.ReadImage(str(source)))
    assert mask.GetPixelID() == SimpleITK.sitkUInt8
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask).T, labels)
    if suffix != ".nrrd":
        back = nib.load(tmp_path / f"mask{suffix}")
        np.testing.assert_allclose(back.affine, nib.load(source).affine, atol=1e-7)
        np.testing.assert_array_equal(np.asarray(back.dataobj), labels)
    again = read_image(tmp_path / f"mask{suffix}")
    assert isinstance(again, Volume)
    np.testing.assert_array_equal(again.voxels, labels)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_without_a_source_the_affine_decides(tmp_path: Path, suffix: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = _turn() @ np.diag([0.7, 0.9, 3.3])
    affine[:3, 3] = (1, 2, 3)
    volume = Volume(np.zeros((5, 6, 7), np.float32), affine, "MR")
    labels = _labels(volume.shape)
    write_label_map(tmp_path / f"mask{suffix}", labels, volume, None)
    mask = SimpleITK.ReadImage(str(tmp_path / f"mask{suffix}"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask).T, labels)
    for index in ((0, 0, 0), (4, 5, 6), (0, 3, 0)):
        ras = (affine @ (*index, 1))[:3]
        np.testing.assert_allclose(mask.TransformIndexToPhysicalPoint(index), ras * (-1, -1, 1), atol=1e-5)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_dicom_series(tmp_path: Path, suffix: str) -> None:
    slices = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    turn = _turn()
    write_ct_series(tmp_path / "s", slices, cosines=(*turn[:, 0], *turn[:, 1]), numbering=[3, 1, 4, 2])
    volume = read_image(tmp_path / "s")
    assert isinstance(volume, Volume)
    labels = (volume.voxels % 7).astype(np.uint8)
    write_label_map(tmp_path / f"mask{suffix}", labels, volume, tmp_path / "s")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "s")))
    image, mask = reader.Execute(), SimpleITK.ReadImage(str(tmp_path / f"mask{suffix}"))
    assert mask.GetSize() == image.GetSize()
    for name in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(mask, name)(), getattr(image, name)(), atol=1e-5)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), SimpleITK.GetArrayFromImage(image) % 7)


def test_nrrd_source(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    image.SetOrigin((0.1, 0.2, 0.3))
    image.SetSpacing((0.1, 0.3, 0.7))
    image.SetDirection(tuple(_turn().ravel()))
    SimpleITK.WriteImage(image, str(tmp_path / "image.nrrd"))
    volume = read_image(tmp_path / "image.nrrd")
    write_label_map(tmp_path / "mask.nrrd", _labels((5, 4, 3)), volume, tmp_path / "image.nrrd")
    _same_grid(
        SimpleITK.ReadImage(str(tmp_path / "mask.nrrd")), SimpleITK.ReadImage(str(tmp_path / "image.nrrd"))
    )


@pytest.mark.parametrize("name", ["image.png", "image.jpeg"])
def test_pictures(tmp_path: Path, name: str) -> None:
    Image.fromarray(_labels((9, 14)) * 60).save(tmp_path / name, dpi=(300, 300))
    picture, labels = read_image(tmp_path / name), _labels((9, 14))
    for target in ("mask.nrrd", "mask.png"):
        write_label_map(tmp_path / target, labels, picture, tmp_path / name)
        mask, image = SimpleITK.ReadImage(str(tmp_path / target)), SimpleITK.ReadImage(str(tmp_path / name))
        assert mask.GetSize() == image.GetSize() == (14, 9)
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), labels)
    write_label_map(tmp_path / "mask.nrrd", labels, picture, tmp_path / name)
    _same_grid(SimpleITK.ReadImage(str(tmp_path / "mask.nrrd")), SimpleITK.ReadImage(str(tmp_path / name)))
    write_label_map(tmp_path / "mask.nii.gz", labels, picture, tmp_path / name)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj).T, labels)


@pytest.mark.parametrize("cosines", [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]])
def test_two_dimensional_dicom(tmp_path: Path, cosines: list[int]) -> None:
    dataset = dicom_image(
        np.arange(12, dtype=np.uint16).reshape(3, 4),
        "CT",
        PixelSpacing=[0.8, 0.5],
        ImageOrientationPatient=cosines,
        ImagePositionPatient=[7, 8, 9],
    )
    source = save(dataset, tmp_path / "a.dcm")
    picture, labels = read_image(source), _labels((3, 4))
    assert isinstance(picture, Picture)
    write_label_map(tmp_path / "mask.nrrd", labels, picture, source)
    mask, image = SimpleITK.ReadImage(str(tmp_path / "mask.nrrd")), SimpleITK.ReadImage(str(source))
    assert mask.GetSize() == image.GetSize()[:2] == (4, 3)
    assert mask.GetSpacing() == image.GetSpacing()[:2] == (0.5, 0.8)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), labels)


def test_flat_nifti_keeps_its_two_dimensions(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((6, 7), np.uint8), np.diag([0.5, 0.6, 1, 1])), tmp_path / "a.nii.gz")
    volume = read_image(tmp_path / "a.nii.gz")
    write_label_map(tmp_path / "mask.nrrd", _labels((6, 7, 1)), volume, tmp_path / "a.nii.gz")
    _same_grid(
        SimpleITK.ReadImage(str(tmp_path / "mask.nrrd")), SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    )


def test_a_source_of_another_size_is_not_trusted(tmp_path: Path) -> None:
    nib.save(
        nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.diag([9.0, 9, 9, 1])), tmp_path / "other.nii.gz"
    )
    volume = Volume(np.zeros((5, 6, 7), np.float32), np.eye(4), None)
    for suffix in (".nrrd", ".nii.gz"):
        write_label_map(tmp_path / f"mask{suffix}", _labels((5, 6, 7)), volume, tmp_path / "other.nii.gz")
        assert SimpleITK.ReadImage(str(tmp_path / f"mask{suffix}")).GetSpacing() == (1, 1, 1)


def test_refusals(tmp_path: Path) -> None:
    volume = Volume(np.zeros((2, 3, 4), np.float32), np.eye(4), None)
    picture = Picture(np.zeros((2, 3), np.uint8), None, None)
    with pytest.raises(ImageError, match=r"cannot be written as mask\.tif"):
        write_label_map(tmp_path / "mask.tif", _labels((2, 3)), picture, None)
    with pytest.raises(ImageError, match="cannot be written as PNG"):
        write_label_map(tmp_path / "mask.png", _labels((2, 3, 4)), volume, None)
    with pytest.raises(ImageError, match=r"shape \(3, 2\); uint8 of shape \(2, 3\)"):
        write_label_map(tmp_path / "mask.png", _labels((3, 2)), picture, None)
    with pytest.raises(ImageError, match="int64"):
        write_label_map(tmp_path / "mask.png", np.zeros((2, 3), np.int64), picture, None)
    with pytest.raises(ImageError, match="cannot be written"):
        write_label_map(tmp_path / "no" / "mask.nrrd", _labels((2, 3)), picture, None)
