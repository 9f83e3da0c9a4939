"""Comparisons, counts, sides and lists against the true masks, worked out by hand: the liver has 40 pixels on the left, the
spleen 40 on the right, the kidney 32 on the left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from known_predictor import SIZE, answer, conversation, knowledge, mask
from PIL import Image

from medsegr.evaluation.case import Case, as_row, from_row
from medsegr.evaluation.scoring import Asked, Scorer
from medsegr.evaluation.truth import Scene
from medsegr.predictor import Finding, Reply
from medsegr.reply import Measured


def _score(
    root: Path, kind: str, shown: str, found: str, measured: Measured | None = None, text: str = "Said."
) -> Case:
    """The case of a question about the structures in `shown`, answered with those in `found` and a measurement."""
    c = conversation("i0", ("?", shown, kind))
    if measured:
        text = f"{text} {measured.text}"
    findings = tuple(Finding(name, name, mask(name), 0.8) for name in found.split("+") if name)
    reply = Reply(text, findings, {}, measured=measured)
    return Scorer(knowledge()).score(Asked(c, c.turns[0], 1, "?"), reply, Scene(c, root), {}).case


def _said(kind: str, value: str) -> Measured:
    return Measured(kind, value, f"It is {value}.")


@pytest.mark.parametrize(
    ("pair", "value", "right"),
    [
        ("liver+kidney", "liver", True), ("liver+kidney", "kidney", False), ("liver+kidney", "equal", False),
        ("liver+spleen", "equal", True), ("liver+spleen", "liver", False),
    ],
)  # fmt: skip
def test_the_larger_one_is_that_of_the_true_masks(root: Path, pair: str, value: str, right: bool) -> None:
    assert _score(root, "comparison", pair, pair, _said("comparison", value)).measured is right


def test_a_measurement_of_something_else_is_wrong(root: Path) -> None:
    right = _said("comparison", "liver")
    for found in ("liver", "liver+spleen", "liver+kidney+spleen", ""):
        assert _score(root, "comparison", "liver+kidney", found, right).measured is False
    assert _score(root, "comparison", "liver+kidney", "liver+kidney").measured is False, (
        "nothing was measured"
    )
    assert _score(root, "side", "liver", "liver", _said("place", "left")).measured is False
    assert _score(root, "count", "liver", "spleen", _said("count", "1")).measured is False


def test_only_what_is_to_be_measured_is_judged(root: Path) -> None:
    for kind in ("explicit", "why", "neighbour"):
        assert _score(root, kind, "liver", "liver", _said("place", "left")).measured is None
    assert _score(root, "comparison", "", "liver", _said("place", "left")).measured is None, (
        "nothing is there"
    )
    c = conversation("i0", ("?", "liver", "comparison"))
    turn = replace(c.turns[0], absent=("spleen",))
    reply = Reply("Said.", (), {})
    scored = Scorer(knowledge()).score(Asked(c, turn, 1, "?"), reply, Scene(c, root), {})
    assert scored.case.measured is None, "one of two is absent: there is nothing to compare"


def test_the_side_is_that_of_the_true_mask(root: Path) -> None:
    for value, right in (("left", True), ("right", False), ("middle", False)):
        assert _score(root, "side", "liver", "liver", _said("side", value)).measured is right
    assert _score(root, "side", "spleen", "spleen", _said("side", "right")).measured is True


@pytest.mark.parametrize(
    ("pieces", "right"),
    [
        (1, {1}), (2, {2}), (5, {5}),  # few: exactly
        (6, {5, 6, 7}), (10, {8, 9, 10, 11, 12}), (15, {12, 13, 14, 15, 16, 17, 18}),  # many: a fifth may be missed
    ],
)  # fmt: skip
def test_a_count_is_exact_or_nearly_so(root: Path, pieces: int, right: set[int]) -> None:
    labels = np.zeros(SIZE, np.uint8)
    for n in range(pieces):
        labels[2 * (n // 10), 2 * (n % 10)] = 1
    Image.fromarray(labels).save(root / "i0-mask.png")
    judged = {
        n: _score(root, "count", "liver", "liver", _said("count", str(n))).measured for n in range(1, 25)
    }
    assert {n for n, good in judged.items() if good} == right


def test_what_is_listed_is_an_f1_of_names(root: Path) -> None:
    everything = "liver+spleen+kidney"
    found = {"liver+spleen+kidney": 1.0, "liver+spleen": 2 * 2 / 5, "liver": 2 / 4, "": 0.0}
    for names, f1 in found.items():
        assert _score(root, "all", everything, names).listed == pytest.approx(f1)
    assert _score(root, "all", "liver+kidney", "liver+spleen").listed == pytest.approx(0.5)
    assert (
        _score(root, "all", "", "liver").listed is None
        and _score(root, "multi", "liver", "liver").listed is None
    )


def test_the_measured_sentence_is_no_word_of_the_model(root: Path) -> None:
    c = conversation("i0", ("?", "liver", "explicit"))
    turn = replace(c.turns[0], answer="The <p>liver</p> [SEG] stores glycogen and makes bile.")
    place = Measured("place", "left", "Here it lies in the upper left of the image.")
    finding = Finding("liver", "liver", mask("liver"), 0.8)

    def words(text: str, measured: Measured | None) -> tuple[float, float, float]:
        reply = Reply(text, (finding,), {}, measured=measured)
        case = Scorer(knowledge()).score(Asked(c, turn, 1, "?"), reply, Scene(c, root), {}).case
        assert case.answer == text, "the row has the whole answer"
        return case.token_f1, case.rouge_l, case.bleu

    said = "The liver stores glycogen and makes bile."
    assert words(f"{said} {place.text}", place) == words(said, None) == pytest.approx((1.0, 1.0, 1.0))
    assert words(f"{said} {place.text}", None)[0] < 1.0


def test_rows_hold_what_was_measured_and_listed(root: Path) -> None:
    (case,) = answer(root, conversation("i0", ("liver", "liver", "explicit")))
    assert (case.measured, case.listed) == (None, None)
    for measured, listed in ((True, None), (False, 0.8), (None, 0.0)):
        changed = replace(case, measured=measured, listed=listed)
        assert from_row({name: str(cell) for name, cell in as_row(changed).items()}) == changed
