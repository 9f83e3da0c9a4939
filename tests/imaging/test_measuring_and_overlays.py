"""Sizes by hand, and what an overlay paints where."""

from __future__ import annotations

import numpy as np
import pytest

from medsegr.errors import ImageError
from medsegr.imaging import COLOURS, Picture, Volume, measure, overlay
from medsegr.imaging.measuring import size_in_words


def test_area_in_mm2_or_in_pixels() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    pixels = np.zeros((4, 5), np.uint8)
    assert measure(mask, Picture(pixels, "XR", (0.5, 0.25))) == {"area_mm2": 0.75}
    assert measure(mask, Picture(pixels, "XR", None)) == {"area_px": 6}


def test_volume_and_slices_along_the_acquisition_axis() -> None:
    volume = Volume(np.zeros((9, 4, 5), np.float32), np.diag([5.0, 1.0, 2.0, 1.0]), "MR")
    mask = np.zeros(volume.shape, bool)
    mask[2, 1, 1:3] = mask[6, 0, 0] = True
    assert volume.slice_axis == 0
    assert measure(mask, volume) == {"volume_ml": pytest.approx(0.03), "slices": [2, 6]}
    assert measure(np.zeros_like(mask), volume) == {"volume_ml": 0.0, "slices": []}


def test_sizes_are_said_in_the_unit_that_is_known() -> None:
    mask = np.ones((40, 50), bool)
    pixels = np.zeros((40, 50), np.uint8)
    assert size_in_words(mask, Picture(pixels, "XR", (0.8, 1.0))) == "1,600 mm²"
    assert size_in_words(mask, Picture(pixels, None, None)) == "2,000 pixels"
    volume = Volume(np.zeros((20, 30, 40), np.float32), np.diag([1.0, 1.0, 2.0, 1.0]), "CT")
    assert size_in_words(np.ones(volume.shape, bool), volume) == "48.0 ml"


def test_a_mask_on_another_grid_is_refused() -> None:
    with pytest.raises(ImageError, match=r"\(3, 3\)"):
        measure(np.ones((3, 3), bool), Picture(np.zeros((4, 5), np.uint8), None, None))


def test_overlay_outlines_fully_fills_lightly_and_leaves_the_rest() -> None:
    rgb = np.full((7, 7, 3), 100, np.uint8)
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    drawn = overlay(rgb, [("liver", mask), ("cyst", np.eye(7, dtype=bool) & ~mask)])
    assert drawn[0, 1].tolist() == [100, 100, 100]
    assert tuple(drawn[1, 3]) == COLOURS[0]
    assert drawn[3, 3].tolist() == [round(100 + 0.25 * (c - 100)) for c in COLOURS[0]]
    assert tuple(drawn[0, 0]) == COLOURS[1]
    assert (rgb == 100).all()


def test_overlay_refuses_other_shapes() -> None:
    with pytest.raises(ImageError, match="liver"):
        overlay(np.zeros((2, 2, 3), np.uint8), [("liver", np.ones((3, 2), bool))])
    with pytest.raises(ImageError, match="RGB"):
        overlay(np.zeros((2, 2), np.uint8), [])
