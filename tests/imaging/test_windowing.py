"""Windows and percentiles, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medsegr.errors import ImageError
from medsegr.imaging import Volume, to_rgb, volume_intensity_range
from medsegr.imaging.dicom_pixels import window


def _grey(rgb: NDArray[np.uint8]) -> list[int]:
    assert rgb.dtype == np.uint8 and rgb.shape[2] == 3
    assert (rgb == rgb[..., :1]).all()
    return [int(v) for v in rgb[..., 0].ravel()]


def test_eight_bit_pictures_stay_as_they_are() -> None:
    grey = np.array([[0, 7], [200, 255]], np.uint8)
    assert _grey(to_rgb(grey, "CT")) == [0, 7, 200, 255]
    colour = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(to_rgb(colour, "PHOTO"), colour[..., :3])
    assert _grey(to_rgb(np.array([[True, False]]), None)) == [255, 0]


def test_ct_soft_tissue_window() -> None:
    hu = np.array([[-1024, -160, 40, 240, 3000]], np.float32)
    assert _grey(to_rgb(hu, "CT")) == [0, 0, 128, 255, 255]  # 40 HU is the middle: 127.5 rounds to even, 128
    assert _grey(to_rgb(hu, "CT", "CHEST")) == [0, 0, 128, 255, 255]
    assert _grey(to_rgb(np.array([[-60]], np.int16), "CT")) == [64]  # 100 / 400 * 255 = 63.75


@pytest.mark.parametrize("part", ["HEAD", "brain", " Brain "])
def test_ct_brain_window(part: str) -> None:
    assert _grey(to_rgb(np.array([[-5, 0, 20, 80, 90]], np.float32), "CT", part)) == [0, 0, 64, 255, 255]


def test_unsigned_ct_is_not_hu() -> None:
    assert _grey(to_rgb(np.array([[0, 65535]], np.uint16), "CT")) == [0, 255]


def test_percentiles_for_other_modalities() -> None:
    values = np.arange(1001, dtype=np.float32).reshape(7, 143)  # percentiles 0.5 and 99.5 are 5 and 995
    shown = to_rgb(values, "MR").reshape(-1, 3)[:, 0]
    assert shown[5] == 0 and shown[995] == 255 and shown[500] == 128  # (500 - 5) / 990 * 255 = 127.5 -> 128
    assert volume_intensity_range(Volume(values.reshape(7, 143, 1), np.eye(4), "MR")) == (5.0, 995.0)


def test_one_range_for_a_volume_overrides_the_slice() -> None:
    assert _grey(to_rgb(np.array([[10, 20, 30]], np.float32), "MR", intensity_range=(10, 110))) == [0, 26, 51]
    assert volume_intensity_range(Volume(np.zeros((1, 1, 1), np.float32), np.eye(4), "CT", "HEAD")) == (0, 80)


def test_flat_and_almost_flat_images() -> None:
    assert _grey(to_rgb(np.full((1, 2), 7.0, np.float32), "MR")) == [0, 0]
    spot = np.zeros((100, 100), np.float32)
    spot[3, 4] = 9
    assert to_rgb(spot, None)[3, 4].tolist() == [255, 255, 255]


def test_bad_pixels() -> None:
    with pytest.raises(ImageError, match="shape"):
        to_rgb(np.zeros((2, 2, 2), np.uint8), None)
    with pytest.raises(ImageError, match="shape"):
        to_rgb(np.zeros((0, 2), np.uint8), None)
    with pytest.raises(ImageError, match="finite"):
        to_rgb(np.array([[np.nan, 1.0]]), "MR")


def test_dicom_window_functions() -> None:
    values = np.array([-1, 0, 127, 128, 255, 256])
    # LINEAR (C.11.2.1.2): centre 128, width 256 maps 0 -> 0 and 255 -> 255 exactly.
    assert window(values, 128, 256).tolist() == [0, 0, 127, 128, 255, 255]
    assert window(np.array([0, 50, 100]), 50, 100, "LINEAR_EXACT").tolist() == [0, 128, 255]
    # SIGMOID: centre -> 1/2; one quarter width above -> 1 / (1 + e^-1) = 0.73106
    assert window(np.array([100, 150]), 100, 200, "SIGMOID").tolist() == [128, 186]
    assert window(np.array([9, 10]), 10, 1).tolist() == [0, 255]
