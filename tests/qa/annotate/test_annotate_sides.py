"""Side words against a mask: what agrees passes, what cannot be confirmed does not."""

from __future__ import annotations

import numpy as np
import pytest

from medsegr.qa.annotate.mask_facts import Frame, MaskFacts, mask_facts
from medsegr.qa.annotate.sides import name_pattern, side_problems

NAMES = name_pattern(["left kidney", "right kidney", "left ventricle"])


def spot(frame: Frame = Frame.PATIENT, x: int = 30, y: int = 4) -> MaskFacts:
    """A spot in the image's upper right corner: the patient's left in radiological convention."""
    labels = np.zeros((40, 40), np.uint8)
    labels[y : y + 6, x : x + 6] = 1
    return mask_facts(labels, "spot", {"spot": (1,)}, ["spot"], frame)


def problems(text: str, facts: MaskFacts) -> list[str]:
    return side_problems(text, facts, NAMES, {"liver": (0.2, 0.4), "spine": (0.5, 0.7)})


@pytest.mark.parametrize(
    "text",
    [
        "It lies on the left.",
        "It lies on the patient's left side.",
        "It lies on the right of the image.",
        "It is in the upper right corner of the image.",
        "It lies at the image's right edge.",
        "It lies to the left of the liver.",
        "The <p>right kidney</p> [SEG] is named, but no side is claimed.",
        "Is it on the left or the right?",
        "It sits higher than its right twin.",
        "It lies right below the diaphragm.",
        "No side at all.",
        "It is a scar left by an operation.",
    ],
)
def test_true_claims_pass(text: str) -> None:
    assert problems(text, spot()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It lies on the right.", "it says right, but the mask is on the patient's left"),
        ("It is a right-sided organ.", "it says right, but the mask is on the patient's left"),
        ("It lies on the left of the image.", "it says left in the image, but the mask is at upper right"),
        ("Seen in the lower right part of the picture.", "it says lower in the image"),
        ("It lies to the right of the liver.", "it says right of the liver, but the mask is on the other"),
        ("It lies on the left and right.", "it says both sides, but the mask is on the patient's left"),
        ("It lies at the viewer's left.", "it says left in the image"),
    ],
)
def test_wrong_claims_are_found(text: str, expected: str) -> None:
    found = problems(text, spot())
    assert len(found) == 1
    assert expected in found[0]


def test_no_side_can_be_claimed_of_the_middle() -> None:
    assert problems("It lies on the left.", spot(x=17)) == ["it says left, but the mask is in the middle"]


def test_where_the_patients_sides_are_unknown_left_means_the_image() -> None:
    assert problems("It lies on the right.", spot(Frame.IMAGE)) == []
    assert problems("It lies on the left.", spot(Frame.IMAGE)) == [
        "it says left, but the mask is on the image's right"
    ]
    found = problems("It lies on the patient's right.", spot(Frame.IMAGE))
    assert found == ["it names the patient's side, which this kind of image does not tell"]
