"""Side and position words against a mask's centroid."""

from __future__ import annotations

import numpy as np
import pytest

from medsegr.evaluation.places import Direction, share_confirmed, stated_directions


def _at(row: int, column: int) -> np.ndarray:
    mask = np.zeros((101, 201), dtype=bool)
    mask[row, column] = True
    return mask


CASES = [
    # the patient's left is on the right of the image; an axial slice shows no height
    ("The spleen lies in the upper left of the abdomen, beside the stomach.", "spleen", "CT", "abdomen", {Direction.IMAGE_RIGHT}),
    ("The right kidney lies at the back of the abdomen on the patient's right side.", "right kidney", "CT", "abdomen",
     {Direction.IMAGE_LEFT, Direction.DOWN}),
    ("The left lung lies in the left half of the chest.", "left lung", "XR", "chest", {Direction.IMAGE_RIGHT}),
    ("The upper right canine lies in the upper jaw on the patient's right, third from the midline.", "upper right canine", "XR",
     "jaw", {Direction.IMAGE_LEFT, Direction.UP}),
    ("The aorta lies in front of the spine, slightly left of the midline.", "aorta", "CT", "abdomen", {Direction.IMAGE_RIGHT}),
    # relative to another structure: says nothing about the image
    ("The vena cava lies in front of the spine, to the right of the aorta.", "inferior vena cava", "CT", "abdomen", set()),
    ("The spleen lies under the left ribs nine to eleven.", "spleen", "CT", "abdomen", set()),
    ("The vessel drains to the left renal vein.", "portal vein", "CT", "abdomen", set()),
    # contradictory words cancel out
    ("The kidneys lie on the left side and on the right side.", "kidneys", "CT", "abdomen", set()),
    # a chamber's name is no side of the image, and an echo has no radiological display
    ("The left ventricle lies at the left of the heart.", "left ventricle", "MR", "heart", set()),
    ("The nerve lies on the left side.", "nerve", "US", "limb", set()),
    # words about the image follow the viewer, whatever the modality
    ("The lesion is in the upper left of the image.", "skin lesion", "DERM", "skin", {Direction.IMAGE_LEFT, Direction.UP}),
    ("The spleen is on the right of this picture.", "spleen", "CT", "abdomen", {Direction.IMAGE_RIGHT}),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "name", "modality", "region", "expected"), CASES)
def test_what_an_answer_states(
    answer: str, name: str, modality: str, region: str, expected: set[Direction]
) -> None:
    assert stated_directions(answer, name, modality, region) == expected


def test_directions_against_the_centroid() -> None:
    assert share_confirmed({Direction.IMAGE_RIGHT, Direction.DOWN}, _at(80, 150)) == 1.0
    assert share_confirmed({Direction.IMAGE_LEFT, Direction.DOWN}, _at(80, 150)) == 0.5
    assert share_confirmed({Direction.IMAGE_LEFT}, _at(80, 150)) == 0.0


def test_what_cannot_be_judged_is_left_out() -> None:
    assert share_confirmed({Direction.IMAGE_LEFT}, np.zeros((5, 5), dtype=bool)) is None
    assert share_confirmed(set(), _at(80, 150)) is None
    assert share_confirmed({Direction.IMAGE_LEFT}, _at(80, 102)) is None, "1 % from the middle is no side"
    assert share_confirmed({Direction.IMAGE_LEFT, Direction.UP}, _at(10, 102)) == 1.0, (
        "the other word still counts"
    )


def test_the_centroid_is_that_of_all_pixels() -> None:
    mask = _at(50, 20)
    mask[50, 100:200] = True
    assert share_confirmed({Direction.IMAGE_RIGHT}, mask) == 1.0
