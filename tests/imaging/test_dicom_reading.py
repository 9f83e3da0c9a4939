"""Single DICOM images of all kinds, and series whose geometry has to agree with ITK's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_factory import dicom_image, save, write_ct_series
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, generate_uid

from medsegr.errors import ImageError
from medsegr.imaging import Picture, Volume, read_image, to_rgb, write_label_map

STORED = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100
SLICES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
TURN = np.deg2rad([20.0, -15.0])
OBLIQUE = (
    float(np.cos(TURN[0])), float(np.sin(TURN[0])), 0.0, float(-np.sin(TURN[0]) * np.cos(TURN[1])),
    float(np.cos(TURN[0]) * np.cos(TURN[1])), float(np.sin(TURN[1])),
)  # fmt: skip
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def _read(dataset: Any, tmp_path: Path) -> Picture:
    image = read_image(save(dataset, tmp_path / "a.dcm"))
    assert isinstance(image, Picture)
    return image


def test_ct_slice_is_in_hu_with_row_and_column_spacing(tmp_path: Path) -> None:
    scale = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    dataset = dicom_image(STORED, "CT", PixelSpacing=[0.8, 0.5], BodyPartExamined="head", **scale)
    picture = _read(dataset, tmp_path)
    np.testing.assert_array_equal(picture.pixels, STORED * 2.0 - 1000)
    assert picture.pixels.dtype == np.float32
    assert (picture.modality, picture.spacing_mm, picture.body_part) == ("CT", (0.8, 0.5), "HEAD")


def test_optional_attributes_may_be_missing(tmp_path: Path) -> None:
    picture = _read(dicom_image(STORED, "MR"), tmp_path)
    assert (picture.modality, picture.spacing_mm, picture.body_part) == ("MR", None, None)
    dataset = dicom_image(STORED, "MR", PixelSpacing=None)
    del dataset.Modality
    assert _read(dataset, tmp_path).modality is None
    assert read_image(tmp_path / "a.dcm", "MR").modality == "MR"


@pytest.mark.parametrize(
    ("code", "name"),
    [("CR", "XR"), ("DX", "XR"), ("MG", "XR"), ("PX", "XR"), ("IO", "XR"), ("OP", "FUNDUS"), ("OPT", "FUNDUS"),
     ("XC", "PHOTO"), ("ES", "PHOTO"), ("SM", "MICRO"), ("US", "US")],
)  # fmt: skip
def test_modality_map(tmp_path: Path, code: str, name: str) -> None:
    assert _read(dicom_image(STORED, code), tmp_path).modality == name


def test_monochrome1_is_turned_over(tmp_path: Path) -> None:
    picture = _read(dicom_image(STORED + 7, "CR", PhotometricInterpretation="MONOCHROME1"), tmp_path)
    np.testing.assert_array_equal(picture.pixels, (STORED + 7)[::-1, ::-1])  # 1100 - x, on 7..1107


def test_xray_window_is_applied_before_inversion(tmp_path: Path) -> None:
    window = {"WindowCenter": [500, 90], "WindowWidth": [1000, 9], "VOILUTFunction": "LINEAR_EXACT"}
    expected = np.rint(np.clip(STORED / 1000, 0, 1) * 255).astype(np.uint8)
    picture = _read(dicom_image(STORED, "DX", ImagerPixelSpacing=[0.2, 0.1], **window), tmp_path)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.spacing_mm == (0.2, 0.1)
    inverted = _read(dicom_image(STORED, "DX", PhotometricInterpretation="MONOCHROME1", **window), tmp_path)
    np.testing.assert_array_equal(inverted.pixels, 255 - expected)


def test_a_window_that_shows_nothing_is_passed_over(tmp_path: Path) -> None:
    picture = _read(dicom_image(STORED, "DX", WindowCenter=60000, WindowWidth=10), tmp_path)
    np.testing.assert_array_equal(picture.pixels, STORED)


def test_voi_lut_sequence(tmp_path: Path) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [1101, 0, 12], list(np.minimum(np.arange(1101) * 4, 4095))
    dataset = dicom_image(STORED, "MG")
    lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "US"
    dataset.VOILUTSequence = [lut]
    expected = np.rint(np.minimum(STORED * 4.0, 4095) / 4095 * 255)
    np.testing.assert_array_equal(_read(dataset, tmp_path).pixels, expected)


def test_eight_bit_grey_is_shown_as_stored(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    picture = _read(dicom_image(grey, "US"), tmp_path)
    assert picture.pixels.dtype == np.uint8
    np.testing.assert_array_equal(to_rgb(picture.pixels, "US")[..., 0], grey)


def test_ultrasound_region_gives_spacing_in_mm(tmp_path: Path) -> None:
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, 0.05  # cm
    dataset = dicom_image(STORED, "US", SequenceOfUltrasoundRegions=[region])
    assert _read(dataset, tmp_path).spacing_mm == pytest.approx((0.5, 0.2))


def test_rgb_ybr_and_palette_colour(tmp_path: Path) -> None:
    rgb = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 90, 90]]], np.uint8)
    np.testing.assert_array_equal(_read(dicom_image(rgb, "XC", SamplesPerPixel=3), tmp_path).pixels, rgb)
    planar = dicom_image(rgb, "US", SamplesPerPixel=3, PlanarConfiguration=1)
    planar.PixelData = np.moveaxis(rgb, -1, 0).tobytes()
    np.testing.assert_array_equal(_read(planar, tmp_path).pixels, rgb)
    # ITU-R BT.601 full range of red, green, blue and grey 90
    ybr = np.array([[[76, 85, 255], [150, 44, 21]], [[29, 255, 107], [90, 128, 128]]], np.uint8)
    dataset = dicom_image(ybr, "US", SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL")
    assert np.abs(_read(dataset, tmp_path).pixels.astype(int) - rgb).max() <= 2
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    palette = dicom_image(indices, "US", PhotometricInterpretation="PALETTE COLOR")
    for name, values in (("Red", [0, 255, 10]), ("Green", [1, 0, 20]), ("Blue", [2, 0, 30])):
        setattr(palette, f"{name}PaletteColorLookupTableDescriptor", [3, 0, 16])
        palette[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(palette, f"{name}PaletteColorLookupTableData", (np.array(values, np.uint16) * 257).tobytes())
    assert _read(palette, tmp_path).pixels.tolist() == [[[0, 1, 2], [255, 0, 0]], [[10, 20, 30], [255, 0, 0]]]


def test_jpeg_compressed_colour(tmp_path: Path) -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:, :8], rgb[:, 8:] = (200, 30, 30), (30, 30, 200)
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=95, subsampling=0)
    dataset = dicom_image(rgb, "US", SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL_422")
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    assert np.abs(_read(dataset, tmp_path).pixels.astype(int) - rgb).max() <= 4


def test_syntaxes_that_pydicom_cannot_decode_go_through_gdcm(tmp_path: Path) -> None:
    hu = (np.arange(12 * 10).reshape(12, 10) * 3 - 200).astype(np.int16)
    writer = SimpleITK.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(SimpleITK.GetImageFromArray(hu[None]))
    assert "Lossless" in pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID.name
    picture = read_image(tmp_path / "a.dcm", "CT")
    assert isinstance(picture, Picture)
    np.testing.assert_array_equal(picture.pixels, hu)


def test_grey_frames_become_a_volume(tmp_path: Path) -> None:
    save(dicom_image(SLICES, "XA", PixelSpacing=[0.8, 0.5]), tmp_path / "a.dcm")
    volume = read_image(tmp_path / "a.dcm")
    assert isinstance(volume, Volume) and volume.shape == (6, 5, 4) and volume.modality == "XR"
    assert volume.spacing_mm == (0.5, 0.8, 1.0) and volume.slice_axis == 2
    np.testing.assert_array_equal(volume.slice_pixels(3), SLICES[3])


def test_colour_frames_become_a_colour_volume(tmp_path: Path) -> None:
    frames = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    save(dicom_image(frames, "US", SamplesPerPixel=3), tmp_path / "a.dcm")
    volume = read_image(tmp_path / "a.dcm")
    assert isinstance(volume, Volume)
    np.testing.assert_array_equal(volume.slice_pixels(1), frames[1])


def test_enhanced_frames_are_sorted_by_position_and_rescaled(tmp_path: Path) -> None:
    shared, measures, plane, values = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.5], 3
    plane.ImageOrientationPatient = list(SAGITTAL)
    values.RescaleSlope, values.RescaleIntercept = 2, -100
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [values]
    frames = []
    for x in (9.0, 3.0, 0.0, 6.0):
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = [x, -50, 80]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset = dicom_image(SLICES, "CT")
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    save(dataset, tmp_path / "a.dcm")
    volume = read_image(tmp_path / "a.dcm")
    assert isinstance(volume, Volume) and volume.spacing_mm == (0.5, 0.8, 3.0)
    # normal = (0, 1, 0) x (0, 0, -1) = (-1, 0, 0): the first slice is the one at x = 9
    np.testing.assert_array_equal(volume.affine[:3, 3], (-9, 50, 80))
    np.testing.assert_array_equal(volume.voxels[..., 0], SLICES[0].T * 2.0 - 100)
    np.testing.assert_array_equal(volume.voxels[..., 3], SLICES[2].T * 2.0 - 100)


def _itk(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def _itk_affine(image: SimpleITK.Image) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@pytest.mark.parametrize(
    "cosines", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), SAGITTAL, (1, 0, 0, 0, 0, -1), OBLIQUE]
)
@pytest.mark.parametrize("numbering", [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]])
def test_series_geometry_agrees_with_itk(
    tmp_path: Path, cosines: tuple[float, ...], numbering: list[int]
) -> None:
    write_ct_series(tmp_path / "series", SLICES, cosines=cosines, numbering=numbering)
    volume, image = read_image(tmp_path / "series"), _itk(tmp_path / "series")
    assert isinstance(volume, Volume) and volume.modality == "CT"
    np.testing.assert_allclose(volume.affine, _itk_affine(image), atol=1e-5)
    np.testing.assert_array_equal(volume.voxels, SimpleITK.GetArrayFromImage(image).T)
    np.testing.assert_array_equal(volume.voxels[..., 2], SLICES[2].T - 1024.0)
    assert volume.slice_axis == 2 and volume.spacing_mm == pytest.approx((0.5, 0.8, 2.5))


def test_axial_series_hangs_as_stored_from_feet_to_head(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "series", SLICES, numbering=[4, 3, 2, 1])
    volume = read_image(tmp_path / "series")
    assert isinstance(volume, Volume)
    np.testing.assert_array_equal(volume.slice_pixels(0), SLICES[0] - 1024.0)
    np.testing.assert_allclose(volume.affine @ (0, 0, 0, 1), (10, 20, 30, 1))


def test_a_missing_slice_leaves_the_median_gap(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "series", np.zeros((6, 3, 3), np.int16))
    paths[2].unlink()
    volume = read_image(tmp_path / "series")
    assert isinstance(volume, Volume) and volume.spacing_mm[2] == pytest.approx(2.5) and volume.n_slices == 5


def test_tilted_gantry_shears_the_grid(tmp_path: Path) -> None:
    """ITK squares such a grid and calls the oblique step its spacing; a voxel's true place needs the shear."""
    for index, path in enumerate(write_ct_series(tmp_path / "series", SLICES)):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = [0, 0.7 * index, 2.5 * index]
        dataset.save_as(path)
    volume = read_image(tmp_path / "series")
    assert isinstance(volume, Volume)
    np.testing.assert_allclose(volume.affine[:3, 2], (0, -0.7, 2.5))
    assert volume.voxel_ml == pytest.approx(0.5 * 0.8 * 2.5 / 1000)
    write_label_map(tmp_path / "mask.nrrd", np.zeros(volume.shape, np.uint8), volume, None)
    np.testing.assert_allclose(
        _itk_affine(SimpleITK.ReadImage(str(tmp_path / "mask.nrrd"))), volume.affine, atol=1e-6
    )


def test_ct_without_positions_follows_instance_numbers(tmp_path: Path) -> None:
    for path in write_ct_series(tmp_path / "series", SLICES, numbering=[3, 1, 4, 2]):
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
        dataset.save_as(path)
    volume = read_image(tmp_path / "series")
    assert isinstance(volume, Volume) and volume.spacing_mm == (0.5, 0.8, 2.5)
    np.testing.assert_array_equal(volume.voxels[..., 0], SLICES[1].T - 1024.0)


def test_one_ct_slice_is_a_volume_one_xray_a_picture(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "ct", SLICES[:1])
    volume = read_image(tmp_path / "ct")
    assert isinstance(volume, Volume) and volume.shape == (6, 5, 1) and volume.spacing_mm[2] == 2.5
    (tmp_path / "xr").mkdir()
    save(dicom_image(STORED, "DX"), tmp_path / "xr" / "a")
    assert isinstance(read_image(tmp_path / "xr"), Picture)


def test_other_files_in_the_folder_are_passed_over(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "series", SLICES)
    (tmp_path / "series" / "notes.txt").write_text("read me")
    (tmp_path / "series" / "empty.dcm").write_bytes(b"")
    segmentation = dicom_image(np.zeros((4, 5, 6), np.uint8), "SEG", SeriesInstanceUID="9.9")
    save(segmentation, tmp_path / "series" / "seg.dcm")
    volume = read_image(tmp_path / "series")
    assert isinstance(volume, Volume) and volume.n_slices == 4


def test_folders_that_are_no_single_series(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "two", SLICES, SeriesDescription="Abdomen")
    write_ct_series(tmp_path / "two", SLICES[:2], numbering=[8, 9], SeriesInstanceUID="7.7", SeriesNumber=3)
    with pytest.raises(ImageError, match=r"2 series \(CT 'Abdomen' of 4 images; CT 'series 3' of 2 images\)"):
        read_image(tmp_path / "two")
    (tmp_path / "sizes").mkdir()
    save(dicom_image(STORED, "CR"), tmp_path / "sizes" / "a.dcm")
    save(dicom_image(STORED.T.copy(), "CR"), tmp_path / "sizes" / "b.dcm")
    with pytest.raises(ImageError, match=r"2 sizes \(3 x 4, 4 x 3\)"):
        read_image(tmp_path / "sizes")
    save(dicom_image(STORED, "CR"), tmp_path / "sizes" / "b.dcm")
    with pytest.raises(ImageError, match="2 separate CR images without positions"):
        read_image(tmp_path / "sizes")
    write_ct_series(tmp_path / "turned", SLICES[:2])
    write_ct_series(tmp_path / "turned", SLICES[:2], numbering=[5, 6], cosines=SAGITTAL)
    with pytest.raises(ImageError, match="different orientations"):
        read_image(tmp_path / "turned")
    write_ct_series(tmp_path / "twice", SLICES)
    write_ct_series(tmp_path / "twice", SLICES, numbering=[5, 6, 7, 8])
    with pytest.raises(ImageError, match="same position"):
        read_image(tmp_path / "twice")


def test_objects_that_are_no_images(tmp_path: Path) -> None:
    dataset = dicom_image(STORED, "SR")
    with pytest.raises(ImageError, match="SR object"):
        _read(dataset, tmp_path)
    dataset = dicom_image(STORED, "CT")
    del dataset.PixelData
    with pytest.raises(ImageError, match="without pixel data"):
        _read(dataset, tmp_path)
    with pytest.raises(ImageError, match="whole-slide"):
        _read(dicom_image(SLICES, "SM"), tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 131, 132, 200, 400, -1, -10])
def test_truncated_dicom_earns_one_sentence(tmp_path: Path, keep: int) -> None:
    data = save(dicom_image(STORED, "CT", SOPInstanceUID=generate_uid()), tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(data[:keep])
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.dcm")
    assert str(caught.value).startswith("a.dcm ") and str(caught.value).endswith("expected.")


def test_dicom_without_preamble_or_suffix(tmp_path: Path) -> None:
    data = save(dicom_image(STORED, "CT"), tmp_path / "a.dcm").read_bytes()
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    (tmp_path / "IM0001").write_bytes(data)
    assert isinstance(read_image(tmp_path / "IM0001"), Picture)
    bare = Dataset()
    bare.update({element.tag: element for element in dataset})
    bare.is_little_endian, bare.is_implicit_VR = True, True
    bare.save_as(tmp_path / "bare.dcm", write_like_original=True)
    picture = read_image(tmp_path / "bare.dcm")
    assert isinstance(picture, Picture)
    np.testing.assert_array_equal(picture.pixels, STORED)
