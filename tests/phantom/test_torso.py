"""The torso phantom: anatomy in its place, plausible sizes and HU, the same body for the same seed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medsegr.imaging import measure
from medsegr.phantom import LABELS, Torso, make_torso


@pytest.fixture(scope="module", params=[0, 7])
def torso(request: pytest.FixtureRequest) -> Torso:
    return make_torso(seed=request.param, shape=(88, 88, 60), spacing_mm=(4.0, 4.0, 5.0))


def _centre_ras(torso: Torso, name: str) -> NDArray[np.float64]:
    index = np.argwhere(torso.mask(name)).mean(axis=0)
    return np.asarray((torso.volume.affine @ (*index, 1))[:3])


def test_every_organ_has_a_plausible_size(torso: Torso) -> None:
    """Adult reference ranges, wide, in ml; the chest is cut at its middle."""
    ranges = {
        "right lung": (900, 2500),
        "left lung": (800, 2500),
        "heart and mediastinum": (400, 1100),
        "liver": (1000, 2000),
        "spleen": (80, 350),
        "right kidney": (100, 250),
        "left kidney": (100, 250),
        "gallbladder": (8, 60),
        "stomach": (150, 600),
        "aorta": (60, 160),
        "spine": (300, 700),
    }
    assert set(ranges) == set(LABELS)
    for name, (low, high) in ranges.items():
        assert low < measure(torso.mask(name), torso.volume)["volume_ml"] < high, name


def test_sides_and_levels_in_ras(torso: Torso) -> None:
    centre = {name: _centre_ras(torso, name) for name in LABELS}
    right, front, up = 0, 1, 2
    for organ in ("liver", "right kidney", "right lung", "gallbladder"):
        assert centre[organ][right] > 20, organ
    for organ in ("spleen", "left kidney", "left lung", "stomach", "aorta"):
        assert centre[organ][right] < -5, organ
    assert abs(centre["spine"][right]) < 5
    assert centre["spleen"][front] < -20 and centre["gallbladder"][front] > 20
    assert centre["spine"][front] < centre["aorta"][front] < centre["liver"][front]
    assert centre["left kidney"][up] > centre["right kidney"][up] - 25
    assert centre["right lung"][up] > centre["liver"][up] + 40 > centre["gallbladder"][up] + 40


def test_organs_are_in_one_piece(torso: Torso) -> None:
    for name in (
        "liver",
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "aorta",
        "spine",
        "stomach",
    ):
        pieces, count = ndimage.label(torso.mask(name))
        assert np.bincount(pieces.ravel())[1:].max() > 0.95 * torso.mask(name).sum(), (name, count)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("liver", 110),
        ("spleen", 120),
        ("right kidney", 170),
        ("aorta", 160),
        ("gallbladder", 10),
        ("left lung", -850),
    ],
)
def test_hu_well_inside_an_organ(torso: Torso, name: str, expected: float) -> None:
    inside = ndimage.binary_erosion(torso.mask(name))
    assert np.median(torso.hu[inside]) == pytest.approx(expected, abs=20)


def test_body_is_wrapped_in_air_and_fat(torso: Torso) -> None:
    assert torso.hu.dtype == np.int16 and torso.hu.min() >= -1024 and torso.hu.max() <= 3071
    assert np.median(torso.hu[:, :3]) < -950
    fat = (torso.hu > -130) & (torso.hu < -70)
    assert 0.1 < fat.sum() / (torso.hu > -130).sum() < 0.7
    assert (torso.hu > 300).sum() > 500  # bone


def test_volume_hangs_like_a_ct(torso: Torso) -> None:
    k = int(np.argmax(torso.mask("liver").sum(axis=(0, 1))))
    liver = torso.volume.slice_from_volume(k, torso.mask("liver"))
    spine = torso.volume.slice_from_volume(k, torso.mask("spine"))
    assert torso.volume.slice_axis == 2 and torso.volume.modality == "CT"
    assert (
        np.argwhere(liver)[:, 1].mean() < np.argwhere(spine)[:, 1].mean()
    )  # the liver is on the left of the screen
    assert np.argwhere(spine)[:, 0].mean() > np.argwhere(liver)[:, 0].mean()  # the spine is below it


def test_seeds_repeat_and_differ() -> None:
    small = {"shape": (40, 40, 15), "spacing_mm": (8.8, 8.8, 20.0)}
    one, same, other = make_torso(3, **small), make_torso(3, **small), make_torso(4, **small)  # type: ignore[arg-type]
    np.testing.assert_array_equal(one.hu, same.hu)
    np.testing.assert_array_equal(one.labels, same.labels)
    assert (one.labels != other.labels).mean() > 0.01


def test_default_size_is_quick() -> None:
    start = time.process_time()
    torso = make_torso()
    assert time.process_time() - start < 5
    assert torso.volume.shape == (160, 160, 60)
    assert torso.volume.spacing_mm == pytest.approx((2.2, 2.2, 5.0))
    assert set(np.unique(torso.labels)) == {0, *LABELS.values()}
