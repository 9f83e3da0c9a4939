"""Mask facts by hand: boxes, shares, neighbours, and above all sides in radiological convention."""

from __future__ import annotations

import numpy as np
import pytest

from medsegr.errors import MedSegRError
from medsegr.qa.annotate.mask_facts import Frame, frame_of, mask_facts

VALUES = {"one": (1,), "two": (2,), "three": (3,), "both": (1, 2)}


def test_box_centre_and_area_are_shares_of_width_and_height() -> None:
    labels = np.zeros((20, 40), np.uint8)
    labels[2:6, 10:20] = 1
    facts = mask_facts(labels, "one", VALUES, ["one"], Frame.IMAGE)
    assert facts.box == (0.25, 0.1, 0.5, 0.3)
    assert facts.centre == (0.375, 0.2)
    assert facts.area_share == 0.05  # 40 of 800 pixels
    assert facts.pieces == 1


@pytest.mark.parametrize(
    ("rows", "columns", "image", "patient", "seen"),
    [
        (slice(0, 10), slice(0, 10), "upper left", "upper right", "left"),
        (slice(0, 10), slice(30, 40), "upper right", "upper left", "right"),
        (slice(30, 40), slice(0, 10), "lower left", "lower right", "left"),
        (slice(30, 40), slice(30, 40), "lower right", "lower left", "right"),
        (slice(15, 25), slice(15, 25), "middle", "middle", "middle"),
        (slice(0, 10), slice(15, 25), "upper middle", "upper middle", "middle"),
    ],
)
def test_what_is_on_the_images_left_is_on_the_patients_right(
    rows: slice, columns: slice, image: str, patient: str, seen: str
) -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[rows, columns] = 1
    for_patient = mask_facts(labels, "one", VALUES, ["one"], Frame.PATIENT)
    for_image = mask_facts(labels, "one", VALUES, ["one"], Frame.IMAGE)
    assert (for_patient.quadrant, for_patient.image_quadrant) == (patient, image)
    assert (for_image.quadrant, for_image.image_quadrant) == (image, image)
    assert for_image.side == seen
    assert for_patient.side == {"left": "right", "right": "left"}.get(seen, seen)


def test_a_pair_is_on_both_sides_and_a_broad_middle_is_not() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[10:20, 4:12], labels[10:20, 28:36] = 1, 2
    facts = mask_facts(labels, "both", VALUES, ["one", "two", "both"], Frame.PATIENT)
    assert (facts.side, facts.pieces, facts.contains) == ("both", 2, ("one", "two"))
    assert facts.neighbours == ()  # its own parts are no neighbours
    part = mask_facts(labels, "one", VALUES, ["one", "two", "both"], Frame.PATIENT)
    assert (part.side, part.part_of, part.contains) == ("right", ("both",), ())
    labels[:] = 1
    assert mask_facts(labels, "one", VALUES, ["one"], Frame.PATIENT).side == "middle"


def test_specks_are_no_pieces() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[0:10, 0:10] = 1
    labels[39, 39] = 1  # 1 % of the largest piece
    assert mask_facts(labels, "one", VALUES, ["one"], Frame.IMAGE).pieces == 1
    labels[30:32, 30:33] = 1
    assert mask_facts(labels, "one", VALUES, ["one"], Frame.IMAGE).pieces == 2


def test_neighbours_touch_or_are_near_and_lie_where_they_are_seen() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[40:50, 40:50] = 1
    labels[40:50, 50:60] = 2  # touches on the image's right
    labels[56:60, 42:48] = 3  # rows 50 to 55 lie between: 6 pixels, 0.06
    facts = mask_facts(labels, "one", VALUES, ["one", "two", "three"], Frame.PATIENT)
    assert [(n.name, n.relation, n.gap, n.direction) for n in facts.neighbours] == [
        ("two", "touches", 0.0, "to its left (patient's left)"),
        ("three", "near", 0.06, "below it in the image"),
    ]
    in_image = mask_facts(labels, "one", VALUES, ["one", "two"], Frame.IMAGE)
    assert in_image.neighbours[0].direction == "to its right (image's right)"
    labels[labels == 3] = 0
    labels[70:80, 42:48] = 3  # 20 pixels away: no neighbour, but present
    far = mask_facts(labels, "one", VALUES, ["one", "two", "three"], Frame.PATIENT)
    assert [n.name for n in far.neighbours] == ["two"]
    assert far.also_present == ("two", "three")


def test_diagonal_contact_is_contact() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5:10, 5:10], labels[10:12, 10:12] = 1, 2
    assert mask_facts(labels, "one", VALUES, ["one", "two"], Frame.IMAGE).neighbours[0].relation == "touches"


@pytest.mark.parametrize(
    ("modality", "region", "frame"),
    [
        ("CT", "abdomen", Frame.PATIENT),
        ("XR", "chest", Frame.PATIENT),
        ("XR", "jaw", Frame.PATIENT),
        ("MR", "brain", Frame.PATIENT),
        ("MR", "heart", Frame.IMAGE),  # short-axis views are oblique
        ("MR", "spine", Frame.IMAGE),  # sagittal
        ("XR", "breast", Frame.IMAGE),  # a mammogram shows one breast
        ("US", "abdomen", Frame.IMAGE),
        ("FUNDUS", "eye", Frame.IMAGE),
        ("DERM", "skin", Frame.IMAGE),
        ("MICRO", "cells", Frame.IMAGE),
    ],
)
def test_patient_sides_are_claimed_only_where_the_habit_is_firm(
    modality: str, region: str, frame: Frame
) -> None:
    assert frame_of(modality, region) is frame


def test_facts_are_plain_json_and_an_absent_target_has_none() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[0:2, 0:2] = 1
    row = mask_facts(labels, "one", VALUES, ["one"], Frame.PATIENT).to_json()
    assert row["class"] == "one"
    assert row["box_xyxy"] == [0.0, 0.0, 0.2, 0.2]
    assert (row["side"], row["quadrant"], row["quadrant_as_seen_in_the_image"]) == (
        "right",
        "upper right",
        "upper left",
    )
    with pytest.raises(MedSegRError, match="no pixel of 'two'"):
        mask_facts(labels, "two", VALUES, ["one"], Frame.PATIENT)
