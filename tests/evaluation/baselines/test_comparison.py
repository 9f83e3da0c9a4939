"""The table: means over sets, paired intervals, and where it is written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medsegr.errors import MedSegRError
from medsegr.evaluation.baselines.comparison import (
    END,
    START,
    Row,
    by_set,
    comparisons,
    difference,
    head,
    main_sets,
    markdown,
    mean_dice,
    put_between_marks,
    ratio,
)
from medsegr.evaluation.baselines.questions import Answer


def _answers(values: dict[str, list[float]]) -> list[Answer]:
    """One question an image, one image a patient."""
    return [
        Answer(f"{name}-{n}", name, f"{name}-p{n}", f"{name}-{n}.png", "liver", value)
        for name, found in values.items()
        for n, value in enumerate(found)
    ]


def _shifted(answers: list[Answer], by: float) -> list[Answer]:
    return [replace(a, dice=a.dice + by) for a in answers]


SPREAD = _answers({"big": [0.1, 0.3, 0.5, 0.7, 0.9, 0.5, 0.2, 0.8], "other": [0.6, 0.4, 0.7, 0.3, 0.5]})


def test_each_set_counts_once_and_small_and_named_sets_are_apart() -> None:
    answers = _answers(
        {"big": [0.2] * 10, "other": [0.8] * 5, "small": [1.0] * 4, "spinal_cord_mr": [0.0] * 9}
    )
    assert main_sets(answers) == {"big", "other"}
    assert mean_dice(answers).value == pytest.approx(0.5)


def test_a_paired_difference_is_surer_than_its_sides() -> None:
    """The same lead on every question leaves nothing to chance, however far the questions spread."""
    found = difference(_shifted(SPREAD, 0.05), SPREAD)
    assert (found.value, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))
    alone = mean_dice(SPREAD)
    assert alone.high - alone.low > 0.1


def test_the_order_of_the_answers_does_not_matter() -> None:
    assert difference(_shifted(SPREAD, 0.05), SPREAD[::-1]).low == pytest.approx(0.05)


def test_a_ratio_draws_the_same_patients_for_both_sides() -> None:
    found = ratio([replace(a, dice=0.9 * a.dice) for a in SPREAD], SPREAD)
    assert (found.value, found.low, found.high) == pytest.approx((0.9, 0.9, 0.9))


def test_the_interval_of_a_ratio_is_that_of_resampled_ratios() -> None:
    """Against a plain bootstrap of one set."""
    rng = np.random.default_rng(1)
    top, bottom = rng.uniform(0.2, 0.8, 20), rng.uniform(0.4, 0.9, 20)
    found = ratio(_answers({"one": top.tolist()}), _answers({"one": bottom.tolist()}))
    picks = rng.integers(0, 20, (20000, 20))
    low, high = np.percentile(top[picks].mean(1) / bottom[picks].mean(1), [2.5, 97.5])
    assert found.value == pytest.approx(top.mean() / bottom.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.025)


def test_a_ratio_to_nothing_is_no_number() -> None:
    zero = [replace(a, dice=0.0) for a in SPREAD]
    found = ratio(SPREAD, zero)
    assert math.isnan(found.value) and math.isnan(found.low)


def test_rows_with_different_questions_are_not_compared() -> None:
    with pytest.raises(MedSegRError, match="different questions"):
        difference(SPREAD, SPREAD[1:])
    with pytest.raises(MedSegRError, match="different questions"):
        ratio(SPREAD, [*SPREAD[1:], replace(SPREAD[0], question="new")])


@pytest.fixture
def rows() -> dict[str, Row]:
    """a 0.8, b 0.4, c 0.5, d 0.7 and e 0.6 on every question of one set."""
    dice = {"a": 0.8, "b": 0.4, "c": 0.5, "d": 0.7, "e": 0.6}
    return {
        key: Row(f"row {key}", "name", 1000, 1_500_000, tuple(_answers({"big": [value] * 6})))
        for key, value in dice.items()
    }


def test_the_comparisons_are_those_that_the_table_is_for(rows: dict[str, Row]) -> None:
    assert [figure for _, figure in comparisons(rows)] == [
        "0.200 [0.200, 0.200]",
        "0.100 [0.100, 0.100]",
        "0.750 [0.750, 0.750]",
        "0.100 [0.100, 0.100]",
    ]
    lines = head(rows)
    assert [line[0] for line in lines] == [f"{key}. row {key}" for key in "abcde"]
    assert lines[1] == ["b. row b", "name", "1,000", "1.5", "0.400 [0.400, 0.400]", "0.200 [0.200, 0.200]"]
    assert lines[4][-1] == "", "ours is not compared with itself"
    assert list(by_set(rows)) == [["big", "6", "0.800", "0.400", "0.500", "0.700", "0.600"]]


def test_a_set_that_is_no_part_of_the_mean_says_so(rows: dict[str, Row]) -> None:
    more = {k: replace(r, answers=(*r.answers, *_answers({"small": [1.0] * 2}))) for k, r in rows.items()}
    assert [line[:2] for line in by_set(more)] == [["big", "6"], ["small (apart)", "2"]]
    assert head(more)[4][4] == head(rows)[4][4]


def test_the_page_keeps_what_stands_around_the_marks(tmp_path: Path, rows: dict[str, Row]) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Title\n\n{START}\n\nold table\n\n{END}\n\nafterword\n", encoding="utf-8")
    put_between_marks(page, markdown(rows, "About the run."))
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\n") and text.endswith(f"{END}\n\nafterword\n")
    assert "old table" not in text and "About the run." in text
    assert "| e / a: share of the specialists' Dice | 0.750 [0.750, 0.750] |" in text
    put_between_marks(page, markdown(rows, "About the run."))
    assert page.read_text(encoding="utf-8") == text, "written twice, it is the same"


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Title\n")
    with pytest.raises(MedSegRError, match="lacks the lines"):
        put_between_marks(page, "text")
    assert page.read_text() == "# Title\n"
