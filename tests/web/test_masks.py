"""The flattened label map and its rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegr.imaging import Picture, Volume
from medsegr.web.errors import Refusal
from medsegr.web.masks import Geometry, extension_for, fixed_values, flatten, label_names, unpack


def masks() -> list[np.ndarray]:
    small, large = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    small[1, 1] = True
    large[:3, :3] = True
    return [small, large]


def test_a_smaller_finding_lies_over_a_larger_one_whatever_the_order() -> None:
    small, large = masks()
    for order in ([small, large], [large, small]):
        labels = flatten(order, [1, 2], (4, 6))
        wanted = np.where(
            small, 1 if order[0] is small else 2, np.where(large, 2 if order[1] is large else 1, 0)
        )
        assert labels.dtype == np.uint8 and np.array_equal(labels, wanted)


def test_nothing_found_is_an_empty_map() -> None:
    assert flatten([], [], (4, 6)).shape == (4, 6)


def test_fixed_ids_leave_out_what_has_none() -> None:
    assert fixed_values(["spleen", "Liver", "unicorn"], ["liver", "spleen"]) == [2, 1, None]
    small, large = masks()
    assert set(np.unique(flatten([small, large], [None, 7], (4, 6)))) == {0, 7}


def test_repeated_names_stay_apart() -> None:
    assert label_names(["tooth", "tooth", "jaw"]) == {"tooth": 1, "tooth (2)": 2, "jaw": 3}


def test_unpack_undoes_packbits() -> None:
    mask = np.random.default_rng(0).random((3, 5, 7)) > 0.5
    assert np.array_equal(unpack(np.packbits(mask).tobytes(), (3, 5, 7)), mask)


def test_geometry_survives_json_and_makes_an_empty_image() -> None:
    affine = np.diag([-1.0, 2, 3, 1])
    volume = Geometry.of(Volume(np.zeros((2, 3, 4), np.float32), affine, "CT"))
    again = Geometry.from_json(volume.to_json())
    reference = again.reference()
    assert again == volume and volume.is_volume and isinstance(reference, Volume)
    assert reference.shape == (2, 3, 4) and np.array_equal(reference.affine, affine)
    picture = Geometry.of(Picture(np.zeros((5, 6, 3), np.uint8), None, (0.5, 0.25)))
    assert Geometry.from_json(picture.to_json()) == picture and picture.shape == (5, 6)


@pytest.mark.parametrize(
    ("asked", "name", "volume", "wanted"),
    [
        (None, "a.png", False, ".png"),
        (None, "a.jpg", False, ".png"),
        (None, "a.nii.gz", True, ".nii.gz"),
        (None, "a.nrrd", True, ".nrrd"),
        (None, "series", True, ".nii.gz"),
        (".nrrd", "a.png", False, ".nrrd"),
    ],
)
def test_the_file_type_follows_the_request_then_the_image(
    asked: str | None, name: str, volume: bool, wanted: str
) -> None:
    geometry = Geometry((2, 2, 2), affine=tuple(map(tuple, np.eye(4)))) if volume else Geometry((2, 2))
    assert extension_for(asked, Path(name), geometry) == wanted


def test_a_volume_does_not_fit_a_png() -> None:
    with pytest.raises(Refusal, match="PNG"):
        extension_for(".png", Path("a.nii"), Geometry((2, 2, 2), affine=tuple(map(tuple, np.eye(4)))))
