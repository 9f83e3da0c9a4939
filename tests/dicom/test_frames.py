"""Frames as native pixels, against pydicom's own decoding, lossless copies of one image, and colours known by design."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixel_data_handlers.util import pixel_dtype
from pydicom.uid import RLELossless

from medsegr.dicom.frames import NoSuchFrame, as_delivered, load_header, read_frames
from medsegr.dicom.whole_files import native_file, part_10
from medsegr.errors import ImageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def file(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


def delivered(path: Path) -> Dataset:
    header = load_header(path)
    as_delivered(header)
    return header


def pixels(path: Path, number: int = 1) -> NDArray[np.generic]:
    """One frame as a viewer would read it: by nothing but the header as delivered."""
    header = delivered(path)
    shape = (header.Rows, header.Columns) + ((3,) if header.SamplesPerPixel == 3 else ())
    return np.frombuffer(read_frames(path, [number])[0], pixel_dtype(header).newbyteorder("<")).reshape(shape)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ],
)
def test_every_lossless_copy_of_an_image_gives_the_same_pixels(name: str) -> None:
    assert np.array_equal(pixels(file(name)), pydicom.dcmread(file("MR_small.dcm")).pixel_array)


def test_signed_values_are_not_rescaled() -> None:
    dataset = pydicom.dcmread(file("CT_small.dcm"))
    assert dataset.RescaleIntercept == -1024
    found = pixels(file("CT_small.dcm"))
    assert found.dtype == np.int16
    assert np.array_equal(found, dataset.pixel_array)


def test_gdcm_does_not_rescale_either(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(file("MR_small_jpeg_ls_lossless.dcm"))
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1000
    dataset.save_as(tmp_path / "rescaled.dcm")
    assert np.array_equal(
        pixels(tmp_path / "rescaled.dcm"), pydicom.dcmread(file("MR_small.dcm")).pixel_array
    )


@pytest.mark.parametrize("name", ["rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm"])
def test_frames_of_a_multi_frame_file_are_told_apart(name: str) -> None:
    whole = pydicom.dcmread(file("rtdose.dcm")).pixel_array
    assert len(whole) == 15
    for number in (1, 7, 15):
        assert np.array_equal(pixels(file(name), number), whole[number - 1])
    several = read_frames(file(name), [3, 1, 3])
    assert several == [whole[2].tobytes(), whole[0].tobytes(), whole[2].tobytes()]


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("ExplVR_BigEnd.dcm", None),
        ("SC_rgb_rle_2frame.dcm", 0),
        ("SC_rgb_jpeg_gdcm.dcm", 0),
        ("SC_rgb_gdcm_KY.dcm", 3),
        ("SC_rgb_dcmtk_+eb+cr.dcm", 3),
        ("SC_rgb_dcmtk_+eb+cy+n1.dcm", 8),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", 8),
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", 8),
        ("SC_rgb_jpeg_dcmtk.dcm", 8),
        ("SC_rgb_jpeg_lossy_gdcm.dcm", 8),
        ("SC_ybr_full_422_uncompressed.dcm", 8),
    ],
)
def test_colour_is_rgb_however_it_is_stored(name: str, tolerance: int | None) -> None:
    header = delivered(file(name))
    assert (header.PhotometricInterpretation, header.PlanarConfiguration, header.SamplesPerPixel) == (
        "RGB",
        0,
        3,
    )
    found = pixels(file(name)).astype(int)
    if tolerance is None:
        assert np.array_equal(found, pydicom.dcmread(file(name)).pixel_array)
        return
    assert found.shape == (100, 100, 3)
    for row, colour in ((5, RED), (25, GREEN), (45, BLUE), (95, WHITE)):
        assert np.abs(found[row, 50] - colour).max() <= tolerance, (row, found[row, 50])


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(file("rtdose_1frame.dcm"))
    indices = np.arange(100, dtype=np.uint8).reshape(10, 10) % 4
    dataset.PixelData, dataset.PhotometricInterpretation = indices.tobytes(), "PALETTE COLOR"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    table = np.array([RED, GREEN, BLUE, WHITE], np.uint16) * 257
    for n, colour in enumerate(("Red", "Green", "Blue")):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [4, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table[:, n].astype("<u2").tobytes())
    dataset.save_as(tmp_path / "palette.dcm")
    expected = np.array([RED, GREEN, BLUE, WHITE], np.uint8)[indices]
    assert np.array_equal(pixels(tmp_path / "palette.dcm"), expected)
    assert "RedPaletteColorLookupTableData" not in delivered(tmp_path / "palette.dcm")


def test_single_bits_begin_at_a_whole_byte_in_every_frame(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(file("liver_1frame.dcm"))
    rng = np.random.default_rng(1)
    masks = rng.random((3, 5, 7)) > 0.5  # 35 bits a frame
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 5, 7, 3
    packed = np.packbits(masks.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset.save_as(tmp_path / "seg.dcm")
    for number in (1, 2, 3):
        (raw,) = read_frames(tmp_path / "seg.dcm", [number])
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[:35].reshape(5, 7)
        assert np.array_equal(bits, masks[number - 1])


def test_a_deflated_file_is_inflated() -> None:
    expected = pydicom.dcmread(file("image_dfl.dcm")).pixel_array
    assert np.array_equal(pixels(file("image_dfl.dcm")), expected)


def test_floating_values_stay_floating(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(file("rtdose_1frame.dcm"))
    values = np.linspace(-1, 1, 100, dtype="<f4")
    del dataset.PixelData
    dataset.FloatPixelData = values.tobytes()
    dataset.save_as(tmp_path / "map.dcm")
    assert read_frames(tmp_path / "map.dcm", [1]) == [values.tobytes()]


def test_compressed_frames_come_as_stored_if_asked_for() -> None:
    path = file("SC_rgb_jpeg_dcmtk.dcm")
    (raw,) = read_frames(path, [1], stored=True)
    assert raw[:2] == b"\xff\xd8"
    assert raw in path.read_bytes()


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_bigendian.dcm", "rtdose_rle.dcm"]
)
def test_a_whole_file_can_be_had_uncompressed(name: str) -> None:
    native = pydicom.dcmread(io.BytesIO(native_file(file(name))))
    assert native.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    frame = native.pixel_array if "NumberOfFrames" not in native else native.pixel_array[0]
    assert np.array_equal(frame, pixels(file(name)))
    assert native.SOPInstanceUID == pydicom.dcmread(file(name)).SOPInstanceUID


def test_a_headerless_file_gets_a_header() -> None:
    path = file("ExplVR_BigEndNoMeta.dcm")
    dataset = pydicom.dcmread(io.BytesIO(part_10(path)))
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.2"
    assert dataset.SOPInstanceUID == pydicom.dcmread(path, force=True).SOPInstanceUID
    assert part_10(file("CT_small.dcm")) == file("CT_small.dcm").read_bytes()


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFrame, match="1 frame,"):
        read_frames(file("CT_small.dcm"), [2])
    with pytest.raises(NoSuchFrame, match="15 frames"):
        read_frames(file("rtdose_rle.dcm"), [0])
    with pytest.raises(NoSuchFrame, match="not an image"):
        read_frames(file("rtplan.dcm"), [1])
    with pytest.raises(ImageError, match="end before"):
        read_frames(file("MR_truncated.dcm"), [1])
    broken = pydicom.dcmread(file("MR_small_RLE.dcm"))
    assert broken.file_meta.TransferSyntaxUID == RLELossless
    broken.PixelData = broken.PixelData[:40] + b"\0" * 60
    broken.save_as(tmp_path / "broken.dcm")
    with pytest.raises(ImageError):
        read_frames(tmp_path / "broken.dcm", [1])
