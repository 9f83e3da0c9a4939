"""Contradictions of a reply, each with a number that was worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from medsegr.choosing.disagreement import (
    Said,
    answer_against_overview,
    paraphrases,
    said,
    text_against_masks,
)


def mask(*columns: int) -> NDArray[np.bool_]:
    found = np.zeros((2, 4), dtype=bool)
    found[:, list(columns)] = True
    return found


def test_text_that_names_what_no_mask_shows() -> None:
    fine = Said("The liver makes bile.", {"liver": mask(0)})
    assert text_against_masks([fine, Said("No spleen is visible.", {})]) == (0.0, "")
    weight, why = text_against_masks([fine, Said("The spleen is here.", {}, ("spleen",))])
    assert (weight, why) == (1.0, "an answer names spleen and its outline came out empty")


def test_a_mask_that_the_text_does_not_name() -> None:
    weight, why = text_against_masks([Said("No spleen is visible.", {"liver": mask(0)})])
    assert (weight, why) == (1.0, "liver was outlined and the answer does not name it")
    assert text_against_masks([Said("The Left Kidney is here.", {"left kidney": mask(0)})])[0] == 0.0


@pytest.mark.parametrize(
    ("outlined", "chance", "gap"),
    [(True, 0.9, 0.0), (True, 0.5, 0.0), (True, 0.1, 0.8), (False, 0.9, 0.8), (False, 0.2, 0.0)],
)
def test_an_answer_against_the_first_glance(outlined: bool, chance: float, gap: float) -> None:
    reply = Said("", {"liver": mask(1)} if outlined else {})
    weight, why = answer_against_overview("liver", reply, chance)
    assert weight == pytest.approx(gap) and bool(why) == (gap > 0)


def test_two_ways_of_asking() -> None:
    both = Said("", {"liver": mask(0, 1)})
    assert paraphrases("liver", both, both)[0] == 0.0
    weight, why = paraphrases("liver", both, Said("", {"liver": mask(1, 2, 3)}))
    assert weight == pytest.approx(1 - 2 * 2 / 10) and "Dice 0.40" in why
    assert paraphrases("liver", both, Said("", {"spleen": mask(0)}))[0] == 1.0
    assert paraphrases("spleen", both, both) == (0.0, "")


@dataclass
class Finding:
    label: str
    mask: NDArray[np.bool_]


@dataclass
class Reply:
    text: str
    findings: tuple[Finding, ...]


def test_masks_of_one_label_are_one() -> None:
    found = said(Reply("Teeth.", (Finding("teeth", mask(0)), Finding("teeth", mask(3)))))
    assert found.masks["teeth"].sum() == 4 and found.undrawn == ()
