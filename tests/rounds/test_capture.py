"""What is kept of a corrected image: pictures, and a few slices of a volume."""

from __future__ import annotations

import numpy as np
import pytest

from medsegr.errors import ImageError
from medsegr.imaging import Picture, Volume
from medsegr.rounds.capture import LONG_SIDE, capture


def test_a_picture_is_kept_as_it_is_shown() -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(6, 10)
    mask = np.zeros((6, 10), np.bool_)
    mask[1:3, 2:5] = True
    kept = capture(Picture(pixels, "XR", None), [mask, ~mask])
    assert kept.rgb.shape == (1, 6, 10, 3) and kept.masks.shape == (2, 1, 6, 10)
    assert np.array_equal(kept.masks[0, 0], mask) and list(kept.index) == [0]


def test_a_large_picture_is_kept_smaller_with_its_mask() -> None:
    mask = np.zeros((1000, 2000), np.bool_)
    mask[:500, :1000] = True
    kept = capture(Picture(np.zeros((1000, 2000), np.uint8), "PHOTO", None), [mask])
    assert kept.rgb.shape == (1, LONG_SIDE, LONG_SIDE, 3)
    assert kept.masks[0, 0].mean() == pytest.approx(0.25, abs=0.01)


def test_of_a_volume_slices_with_and_without_the_mask_are_kept_in_display_orientation() -> None:
    voxels = np.random.default_rng(0).normal(size=(8, 10, 40)).astype(np.float32)
    volume = Volume(voxels, np.diag([1.0, 1.0, 4.0, 1.0]), "CT")
    mask = np.zeros(volume.shape, np.bool_)
    mask[2:4, 3:9, 10:30] = True
    kept = capture(volume, [mask], limit=6)
    reached = [bool(plane.any()) for plane in kept.masks[0]]
    assert len(kept.index) == 6 and sum(reached) == 4
    for plane, k in zip(kept.masks[0], kept.index, strict=True):
        assert np.array_equal(plane, volume.slice_from_volume(int(k), mask))


def test_an_empty_correction_keeps_slices_that_show_nothing() -> None:
    volume = Volume(np.zeros((4, 4, 3), np.float32), np.eye(4), "MR")
    kept = capture(volume, [np.zeros(volume.shape, np.bool_)], limit=8)
    assert len(kept.index) == 3 and not kept.masks.any()


def test_a_mask_on_another_grid_is_refused() -> None:
    with pytest.raises(ImageError, match="grid"):
        capture(Picture(np.zeros((4, 4), np.uint8), None, None), [np.zeros((4, 5), np.bool_)])
