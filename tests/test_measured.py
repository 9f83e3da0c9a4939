"""What the masks add to an answer: masks drawn by hand, sizes, sides and sentences worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medsegr.evaluation.places import share_confirmed, stated_directions
from medsegr.measured import count, larger, measured, place_sentence, side
from medsegr.qa.facts import Concept
from medsegr.reply import Finding, Measured

LOCATED = "Locating the <p>liver</p> [SEG]."
COMPARED = "Comparing the <p>liver</p> [SEG] with the <p>spleen</p> [SEG]."


def _box(rows: slice, columns: slice, shape: tuple[int, int] = (20, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def _row(*lengths: int) -> np.ndarray:
    """[1, W]: runs of these lengths, a gap between each two."""
    runs = [np.r_[np.ones(length, bool), np.zeros(1, bool)] for length in lengths]
    return np.concatenate(runs)[None]


def _concept(region: str = "abdomen", plural: bool = False) -> Concept:
    return Concept("liver", (), plural, region, "on the right", {}, ())


def _finding(phrase: str, pixels: int) -> Finding:
    return Finding(phrase, phrase, _row(pixels), 0.5)


def _add(marked: str, *found: Finding, sizes: tuple[str, ...] = (), **more: Any) -> Measured | None:
    return measured(marked, found, sizes, **more)


# --- comparisons -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("liver", "spleen", "value", "sentence"),
    [
        (100, 60, "liver", "The liver is larger: A against B."),
        (60, 100, "spleen", "The spleen is larger: B against A."),
        (96, 100, "equal", "They are about the same size: A and B."),
        (94, 100, "spleen", "The spleen is larger: B against A."),
    ],
)
def test_the_larger_of_two_with_its_size_first(liver: int, spleen: int, value: str, sentence: str) -> None:
    found = (_finding("liver", liver), _finding("spleen", spleen))
    assert _add(COMPARED, *found, sizes=("A", "B")) == Measured("comparison", value, sentence)


def test_a_comparison_without_sizes_says_which_and_no_more() -> None:
    found = _add(COMPARED, _finding("liver", 9), _finding("spleen", 2))
    assert found == Measured("comparison", "liver", "The liver is larger.")
    same = _add(COMPARED, _finding("liver", 9), _finding("spleen", 9))
    assert same == Measured("comparison", "equal", "They are about the same size.")


def test_the_verb_agrees_with_the_larger_structure() -> None:
    marked = "Comparing the <p>kidneys</p> [SEG] with the <p>spleen</p> [SEG]."
    for kidneys, spleen, said in ((9, 2, "The kidneys are larger."), (2, 9, "The spleen is larger.")):
        found = _add(marked, _finding("kidneys", kidneys), _finding("spleen", spleen), plurals={"kidneys"})
        assert found is not None and found.text == said


def test_five_percent_of_the_larger_count_as_equal() -> None:
    assert [larger({"a": n, "b": 100}) for n in (94, 95, 105, 106)] == ["b", "equal", "equal", "a"]


def test_one_structure_is_not_compared_with_itself() -> None:
    """A model may write the same phrase twice, or none; neither is larger than the other."""
    twice = "Comparing the <p>liver</p> [SEG] with the <p>liver</p> [SEG]."
    assert _add(twice, _finding("liver", 9), _finding("liver", 2)) is None
    assert _add("Comparing [SEG] with [SEG].", _finding("", 9), _finding("", 2)) is None


def test_nothing_is_added_to_three_findings_to_none_and_to_two_that_are_not_compared() -> None:
    one, two, three = (_finding(name, 4) for name in ("liver", "spleen", "heart"))
    assert _add(COMPARED, one, two, three) is None
    assert _add("The <p>liver</p> [SEG] and the <p>spleen</p> [SEG] are outlined.", one, two) is None
    assert _add("No liver is visible in this abdominal CT.") is None
    assert _add("Counting the <p>kidneys</p> [SEG] and <p>lungs</p> [SEG].", one, two) is None


# --- counts ------------------------------------------------------------------------------------------------------------


def test_pieces_are_counted_and_specks_are_not() -> None:
    assert count(np.zeros((4, 4), bool)) == 0
    assert count(_row(5)) == 1
    assert count(_row(50, 40, 60)) == 3
    assert count(_row(50, 40, 3, 60)) == 4, "5 % of 45, the median of 3, 40, 50 and 60, are 2.25"
    assert count(_row(50, 40, 2, 60)) == 3
    assert count(_row(1, 1)) == 2, "small pieces among small ones are no specks"


def test_pieces_that_touch_at_a_corner_are_one_in_a_picture_and_in_a_volume() -> None:
    assert count(np.eye(5, dtype=bool)) == 1
    volume = np.zeros((3, 3, 3), bool)
    volume[0, 0, 0] = volume[1, 1, 1] = True
    assert count(volume) == 1
    volume[1, 1, 1], volume[2, 2, 2] = False, True
    assert count(volume) == 2


@pytest.mark.parametrize(
    ("mask", "value", "sentence"),
    [
        (_row(9), "1", "It is outlined as one piece."),
        (_row(9, 8, 7), "3", "3 separate pieces are outlined."),
        (np.stack([_row(9, 8)] * 3), "2", "2 separate pieces are outlined."),
    ],
)
def test_a_count_is_said(mask: np.ndarray, value: str, sentence: str) -> None:
    found = _add("Counting the <p>kidneys</p> [SEG].", Finding("kidneys", "kidneys", mask, 0.5))
    assert found == Measured("count", value, sentence)


# --- places ------------------------------------------------------------------------------------------------------------

PLACES = [
    (slice(0, 5), slice(0, 10), "left", "upper left"),
    (slice(15, 20), slice(30, 40), "right", "lower right"),
    (slice(5, 15), slice(0, 10), "left", "left"),
    (slice(0, 5), slice(10, 30), "middle", "upper middle"),
    (slice(5, 15), slice(10, 30), "middle", "middle"),
    (slice(5, 15), slice(11, 32), "middle", "middle"),  # 1.5 columns of 40 off the middle, 3.75 %
    (slice(5, 15), slice(12, 32), "right", "right"),  # 2 columns, 5 %
]


@pytest.mark.parametrize(("rows", "columns", "value", "where"), PLACES)
def test_the_side_and_the_place_are_those_of_the_centroid(
    rows: slice, columns: slice, value: str, where: str
) -> None:
    mask = _box(rows, columns)
    assert side(mask) == value
    sentence = f"Here it lies in the {where} of the image."
    found = _add("The <p>liver</p> [SEG] makes bile.", Finding("liver", "liver", mask, 0.5))
    assert found == Measured("place", value, sentence)
    located = _add(LOCATED, Finding("liver", "liver", mask, 0.5))
    assert located == Measured("side", value, sentence), "without a modality the patient's side is unknown"


def test_many_lie_where_one_lies() -> None:
    assert place_sentence(_box(slice(0, 5), slice(0, 9)), _concept(plural=True)) == (
        "Here they lie in the upper left of the image."
    )


@pytest.mark.parametrize(
    ("modality", "region", "patient"),
    [
        ("CT", "abdomen", True), ("MR", "brain", True), ("XR", "chest", True), ("US", "abdomen", False),
        ("XR", "breast", False), ("DERM", "skin", False), (None, "abdomen", False),
    ],
)  # fmt: skip
def test_the_patients_side_where_images_are_shown_in_one_way(
    modality: str | None, region: str, patient: bool
) -> None:
    for columns, seen, body in ((slice(0, 9), "left", "right"), (slice(30, 40), "right", "left")):
        finding = Finding("liver", "liver", _box(slice(0, 5), columns), 0.5)
        found = _add(LOCATED, finding, modality=modality, concept=_concept(region))
        more = f": the patient's {body}, in the usual radiological display" if patient else ""
        assert found == Measured("side", seen, f"Here it lies in the upper {seen} of the image{more}.")


def test_the_middle_is_on_no_side_of_the_patient_and_an_unknown_structure_on_none_that_is_known() -> None:
    middle = Finding("liver", "liver", _box(slice(5, 15), slice(10, 30)), 0.5)
    found = _add(LOCATED, middle, modality="CT", concept=_concept())
    assert found is not None and found.text == "Here it lies in the middle of the image."
    odd = Finding("finding", "", _box(slice(0, 5), slice(0, 9)), 0.5)
    found = _add(LOCATED, odd, modality="CT")
    assert found is not None and "patient" not in found.text


def test_a_volume_has_no_place_in_a_picture() -> None:
    finding = Finding("liver", "liver", np.ones((3, 3, 3), bool), 0.5)
    assert _add("The <p>liver</p> [SEG] makes bile.", finding) is None
    assert _add(LOCATED, finding, modality="CT", concept=_concept()) is None


def test_the_evaluation_reads_the_place_and_finds_it_true() -> None:
    """What is said of the image must not be read as the patient's side."""
    for modality, region in (("CT", "abdomen"), ("DERM", "skin")):
        mask = _box(slice(15, 20), slice(0, 9))
        found = _add(
            LOCATED, Finding("liver", "liver", mask, 0.5), modality=modality, concept=_concept(region)
        )
        assert found is not None
        said = stated_directions(found.text, "liver", modality, region)
        assert len(said) == 2 and share_confirmed(said, mask) == 1.0
        assert share_confirmed(said, _box(slice(0, 5), slice(30, 40))) == 0.0
