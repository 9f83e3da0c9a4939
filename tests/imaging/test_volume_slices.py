"""Display orientation, slicing and geometry of volumes, for every axis order and sign."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from medsegr.errors import ImageError
from medsegr.imaging import Picture, Volume

SHAPE_RAS = (3, 4, 5)


def _oriented(order: tuple[int, ...], signs: tuple[int, ...], spacing_ras: tuple[float, ...]) -> Volume:
    """A volume whose voxel axis i runs along RAS axis order[i], forwards or backwards.

    The value of a voxel is 100 r + 10 a + s of its RAS place, whatever the storage order.
    """
    r, a, s = np.meshgrid(*(np.arange(n) for n in SHAPE_RAS), indexing="ij")
    ras = (100 * r + 10 * a + s).astype(np.float32)
    stored = np.transpose(ras, order)[tuple(slice(None, None, sign) for sign in signs)]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, (ras_axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[ras_axis, voxel_axis] = sign * spacing_ras[ras_axis]
        if sign < 0:
            affine[ras_axis, 3] = spacing_ras[ras_axis] * (SHAPE_RAS[ras_axis] - 1)
    return Volume(stored, affine, None)


def _expected(axis_ras: int, place: int) -> NDArray[np.float32]:
    """The slice as radiologists hang it, written out from what the voxel values mean."""
    rs, as_, ss = (list(range(n))[::-1] for n in SHAPE_RAS)  # from right, from anterior, from head
    if axis_ras == 2:
        rows = [[100 * r + 10 * a + place for r in rs] for a in as_]
    elif axis_ras == 1:
        rows = [[100 * r + 10 * place + s for r in rs] for s in ss]
    else:
        rows = [[100 * place + 10 * a + s for a in as_] for s in ss]
    return np.asarray(rows, np.float32)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
@pytest.mark.parametrize("axis_ras", [0, 1, 2])
def test_slices_hang_radiologically_and_masks_return(
    order: tuple[int, ...], signs: tuple[int, ...], axis_ras: int
) -> None:
    spacing = tuple(5.0 if axis == axis_ras else 1.0 for axis in range(3))
    volume = _oriented(order, signs, spacing)
    assert volume.slice_axis == order.index(axis_ras)
    assert volume.n_slices == SHAPE_RAS[axis_ras]
    out = np.zeros(volume.shape, np.float32)
    for k in range(volume.n_slices):
        place = k if signs[volume.slice_axis] > 0 else SHAPE_RAS[axis_ras] - 1 - k
        shown = volume.slice_pixels(k)
        np.testing.assert_array_equal(shown, _expected(axis_ras, place))
        volume.slice_mask_to_volume(k, shown, out)
    np.testing.assert_array_equal(out, volume.voxels)


def test_slice_axis_of_an_isotropic_volume_is_closest_to_head_foot() -> None:
    assert _oriented((2, 0, 1), (1, -1, 1), (1.0, 1.0, 1.0)).slice_axis == 0
    assert _oriented((0, 1, 2), (1, 1, 1), (1.4, 1.0, 1.0)).slice_axis == 2


def test_slice_axis_of_a_single_slice_is_its_thin_axis_even_if_thin_in_mm() -> None:
    assert Volume(np.zeros((6, 1, 7), np.float32), np.diag([2.0, 0.1, 2.0, 1.0]), None).slice_axis == 1


def test_slice_axis_of_an_oblique_volume() -> None:
    angle = np.deg2rad(30)  # turned about the left-right axis: still closest to axial
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 1.0, 4.0])
    volume = Volume(np.zeros((3, 4, 5), np.float32), affine, "MR")
    assert volume.slice_axis == 2
    np.testing.assert_allclose(volume.spacing_mm, (1, 1, 4))
    assert volume.voxel_ml == pytest.approx(0.004)


def test_colour_volumes_keep_their_channels_last() -> None:
    voxels = np.zeros((3, 4, 5, 3), np.uint8)
    voxels[0, 0, 2] = (1, 2, 3)
    volume = Volume(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]), "US")
    assert volume.slice_pixels(2).shape == (4, 3, 3)
    assert volume.slice_pixels(2)[0, 0].tolist() == [1, 2, 3]


def test_slice_spacing_follows_the_display() -> None:
    volume = Volume(np.zeros((3, 4, 5), np.float32), np.diag([0.5, 0.7, 9.0, 1.0]), None)
    assert volume.slice_spacing_mm == (0.7, 0.5)


def test_voxel_volume_of_a_sheared_grid_is_its_determinant() -> None:
    affine = np.eye(4)
    affine[:3, :3] = [[2, 0, 0], [0, 3, 1], [0, 0, 5]]
    assert Volume(np.zeros((1, 2, 2), np.float32), affine, None).voxel_ml == pytest.approx(0.030)


def test_impossible_values_are_refused() -> None:
    good = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(ImageError, match="invertible"):
        Volume(good, np.diag([1.0, 1.0, 0.0, 1.0]), None)
    with pytest.raises(ImageError, match="3 values that are not finite"):
        Volume(np.where(np.arange(24).reshape(2, 3, 4) < 3, np.nan, good).astype(np.float32), np.eye(4), None)
    with pytest.raises(ImageError, match=r"shape \(2, 0, 4\)"):
        Volume(good[:, :0], np.eye(4), None)
    with pytest.raises(ImageError, match=r"shape \(0, 3\)"):
        Picture(np.zeros((0, 3), np.uint8), None, None)
    with pytest.raises(ImageError, match="spacing"):
        Picture(np.zeros((2, 3), np.uint8), None, (0.0, 1.0))
    volume = Volume(good, np.eye(4), None)
    with pytest.raises(ImageError, match="slices 0 to 3"):
        volume.slice_pixels(4)
    with pytest.raises(ImageError, match="slices 0 to 3"):
        volume.slice_pixels(-1)
    with pytest.raises(ImageError, match="grid"):
        volume.slice_from_volume(0, good[:1])
    with pytest.raises(ImageError, match="does not fit"):
        volume.slice_mask_to_volume(0, np.ones((1, 1), bool), good.copy())
