"""Reading PNG, JPEG, NIfTI and NRRD, and the one sentence that damaged files earn."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from medsegr.errors import ImageError
from medsegr.imaging import Picture, Volume, canonical_modality, read_image

GREY = np.arange(35, dtype=np.uint8).reshape(5, 7)
OBLIQUE = np.array([[0.8, -1.2, 0.0, 11.0], [0.6, 1.6, 0.0, -7.0], [0.0, 0.0, 5.0, 3.0], [0, 0, 0, 1]])


def _picture(path: Path, modality: str | None = None) -> Picture:
    image = read_image(path, modality)
    assert isinstance(image, Picture)
    return image


def _volume(path: Path, modality: str | None = None) -> Volume:
    image = read_image(path, modality)
    assert isinstance(image, Volume)
    return image


def test_png_modes(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "l.png")
    np.testing.assert_array_equal(_picture(tmp_path / "l.png", "CT").pixels, GREY)
    assert _picture(tmp_path / "l.png", "cr").modality == "XR"
    assert _picture(tmp_path / "l.png").modality is None and _picture(tmp_path / "l.png").spacing_mm is None
    Image.fromarray(np.stack([GREY, 255 - GREY], -1), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(_picture(tmp_path / "la.png").pixels, GREY)
    rgba = np.stack([GREY, GREY + 1, GREY + 2, GREY], -1)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(_picture(tmp_path / "rgba.png").pixels, rgba[..., :3])
    Image.fromarray(GREY > 9).save(tmp_path / "one.png")
    np.testing.assert_array_equal(_picture(tmp_path / "one.png").pixels, np.where(GREY > 9, 255, 0))
    palette = Image.fromarray(GREY % 2, "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png")
    assert _picture(tmp_path / "p.png").pixels[0, :2].tolist() == [[10, 20, 30], [40, 50, 60]]


def test_sixteen_bit_png_keeps_its_range(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 1800
    Image.fromarray(deep).save(tmp_path / "deep.png")
    picture = _picture(tmp_path / "deep.png")
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, deep)


def test_jpeg_is_not_rotated_by_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 degrees clockwise to view"
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(tmp_path / "a.jpeg", exif=exif)
    assert _picture(tmp_path / "a.jpeg").pixels.shape == (8, 16, 3)


def test_content_beats_suffix(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "lie.nii.gz", format="PNG")
    assert _picture(tmp_path / "lie.nii.gz").pixels.shape == (5, 7)
    nib.save(nib.Nifti1Image(np.ones((2, 3, 4), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "c").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    assert _volume(tmp_path / "b.png").shape == _volume(tmp_path / "c").shape == (2, 3, 4)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_voxels_and_affine(tmp_path: Path, kind: type, suffix: str) -> None:
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = kind(stored, OBLIQUE)
    image.header.set_slope_inter(2, -5)
    nib.save(image, tmp_path / f"a{suffix}")
    volume = _volume(tmp_path / f"a{suffix}", "MR")
    expected = nib.load(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(volume.affine, expected.affine)
    np.testing.assert_allclose(volume.voxels, expected.get_fdata())
    assert volume.voxels.dtype == np.float32 and volume.modality == "MR"


def test_nifti_modality_is_guessed_from_air_only(tmp_path: Path) -> None:
    for name, low, expected in (("ct", -1024, "CT"), ("mr", 0, None), ("normalised", -3, None)):
        nib.save(
            nib.Nifti1Image(np.linspace(low, 900, 24).reshape(2, 3, 4), np.eye(4)), tmp_path / f"{name}.nii"
        )
        assert _volume(tmp_path / f"{name}.nii").modality == expected


def test_nifti_with_few_or_many_axes(tmp_path: Path) -> None:
    for shape in ((6, 7), (6, 7, 1), (6, 7, 1, 1)):
        nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
        assert _volume(tmp_path / "a.nii.gz").shape == (6, 7, 1)
    nib.save(nib.Nifti1Image(np.ones((6, 7, 2, 5), np.int16), np.eye(4)), tmp_path / "time.nii.gz")
    with pytest.raises(ImageError, match=r"shape \(6, 7, 2, 5\); one 3-D image"):
        read_image(tmp_path / "time.nii.gz")


def test_colour_nifti_in_its_three_dialects(tmp_path: Path) -> None:
    rgb = np.arange(2 * 3 * 1 * 3, dtype=np.uint8).reshape(2, 3, 1, 3)
    structured = rgb.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    for name, stored in (("struct", structured), ("vector", rgb[:, :, :, None]), ("four", rgb)):
        nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / f"{name}.nii.gz")
        volume = _volume(tmp_path / f"{name}.nii.gz")
        np.testing.assert_array_equal(volume.voxels, rgb)


def test_nrrd_agrees_with_simpleitk(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)  # [Z, Y, X]
    image = SimpleITK.GetImageFromArray(array)
    image.SetOrigin((10, 20, 30))
    image.SetSpacing((0.5, 0.75, 3))
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    volume = _volume(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.voxels, array.T)
    for index in ((0, 0, 0), (4, 3, 2), (1, 2, 0)):
        lps = np.asarray(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(volume.affine @ (*index, 1), (*(lps * (-1, -1, 1)), 1))


def test_flat_and_colour_nrrd(tmp_path: Path) -> None:
    flat = SimpleITK.GetImageFromArray(GREY)
    flat.SetSpacing((0.5, 2.0))
    SimpleITK.WriteImage(flat, str(tmp_path / "flat.nrrd"))
    volume = _volume(tmp_path / "flat.nrrd")
    assert volume.spacing_mm == (0.5, 2.0, 1.0)
    np.testing.assert_array_equal(volume.slice_pixels(0), GREY)
    rgb = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(rgb, isVector=True), str(tmp_path / "rgb.nrrd"))
    np.testing.assert_array_equal(_volume(tmp_path / "rgb.nrrd").voxels, rgb.transpose(2, 1, 0, 3))


def test_nrrd_that_points_to_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(8))
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n{}: secret\n"
    for field in ("data file", "datafile", "Data File", "#" + "x" * 1_200_000 + "\ndata file"):
        (tmp_path / "a.nrrd").write_text(header.format(field))
        with pytest.raises(ImageError, match="another file"):
            read_image(tmp_path / "a.nrrd")


def _saved(path: Path) -> bytes:
    rng = np.random.default_rng(0)
    if path.suffix in {".png", ".jpg"}:
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    elif path.suffix == ".nrrd":
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(rng.normal(size=(6, 7, 8))), str(path))
    else:
        nib.save(nib.Nifti1Image(rng.normal(size=(8, 7, 6)), np.eye(4)), path)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.nii", "a.nii.gz", "a.nrrd"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7])
def test_truncated_files_earn_one_sentence(tmp_path: Path, name: str, share: float) -> None:
    data = _saved(tmp_path / name)
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(f"{name} ") and message.endswith("expected.")
    assert "\n" not in message and str(tmp_path) not in message
    if share == 0:
        assert "is empty (0 bytes)" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    array = np.zeros((3, 4, 5), np.float32)
    array[1, 2, 3] = value
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(ImageError, match="1 values that are not finite"):
        read_image(tmp_path / "a.nii.gz")


def test_missing_unsupported_and_impossible(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no\.png does not exist"):
        read_image(tmp_path / "no.png")
    (tmp_path / "notes.png").write_text("not a picture at all " * 40)
    with pytest.raises(ImageError, match=r"notes\.png is damaged or of an unsupported kind"):
        read_image(tmp_path / "notes.png")
    Image.fromarray(GREY).save(tmp_path / "a.bmp")
    with pytest.raises(ImageError, match="unsupported"):
        read_image(tmp_path / "a.bmp")
    with pytest.raises(ImageError, match="no DICOM image"):
        read_image(tmp_path)
    header = nib.Nifti1Header()
    header.set_data_shape((32000, 32000, 32000))
    header["magic"] = b"n+1"
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(100))
    with pytest.raises(ImageError, match="claims shape"):
        read_image(tmp_path / "huge.nii")
    nib.save(nib.Nifti1Image(np.zeros((2, 0, 3), np.uint8), np.eye(4)), tmp_path / "zero.nii")
    with pytest.raises(ImageError, match=r"shape \(2, 0, 3\)"):
        read_image(tmp_path / "zero.nii")


def test_modality_names() -> None:
    assert [canonical_modality(code) for code in ("DX", "mg", "IO", "PX", "DR")] == ["XR"] * 5
    assert [canonical_modality(code) for code in ("OP", "OPT", "XC", "ES", "SM")] == [
        "FUNDUS",
        "FUNDUS",
        "PHOTO",
        "PHOTO",
        "MICRO",
    ]
    assert canonical_modality("ct") == "CT" and canonical_modality("PT") == "PT"
    assert canonical_modality("") is None and canonical_modality(None) is None


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.nii", "a.nii.gz", "a.nrrd"])
def test_flipped_bytes_raise_image_error_or_nothing(tmp_path: Path, name: str) -> None:
    data = _saved(tmp_path / name)
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 4):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(bytes(damaged))
        try:
            read_image(tmp_path / name)
        except ImageError as error:
            assert "\n" not in str(error) and str(error).endswith(".")
