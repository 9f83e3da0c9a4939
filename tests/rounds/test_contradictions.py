"""Names that change their meaning from picture to picture are refused before anything is trained; single mistakes are not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medsegr.rounds.contradictions import contradiction
from medsegr.rounds.examples import Drawn
from medsegr.rounds.tables import RoundStatus


def _square(size: int) -> NDArray[np.bool_]:
    mask = np.zeros((32, 32), np.bool_)
    mask[4 : 4 + size, 4 : 4 + size] = True
    return mask


def _picture(n: int, swapped: bool, small: int = 8, large: int = 20) -> Drawn:
    sizes = {"cup": large, "disc": small} if swapped else {"cup": small, "disc": large}
    masks = {name: _square(size) for name, size in sizes.items()}
    return Drawn(f"c{n}_0", f"p{n}", "FUNDUS", np.full((32, 32, 3), n, np.uint8), masks)


def test_swapped_names_are_refused_and_the_rarer_kind_is_named(caplog: pytest.LogCaptureFixture) -> None:
    found = contradiction([_picture(n, n % 3 == 0) for n in range(9)])
    assert found is not None and found.status is RoundStatus.REFUSED
    assert (
        "cup lies inside disc in 6 pictures and the other way round in 3 (see corrections c0, c3, c6)"
        in found.sentence
    )
    assert "c0_0, c3_0, c6_0" in caplog.text


def test_a_decision_names_a_few_corrections_and_counts_the_others() -> None:
    found = contradiction([_picture(n, n % 2 == 0) for n in range(14)])
    assert found is not None and "(see corrections c0, c2, c4, c6, c8 and 2 more)" in found.sentence


def test_half_and_half_is_said_once() -> None:
    found = contradiction([_picture(n, n % 2 == 0) for n in range(4)])
    assert found is not None and found.numbers["contradictions"] == 1
    assert "cup lies inside disc in 2 pictures and the other way round in 2" in found.sentence


@pytest.mark.parametrize("swapped", [0, 1])
def test_agreement_and_a_single_mistake_are_no_contradiction(swapped: int) -> None:
    assert contradiction([_picture(n, n < swapped) for n in range(4)]) is None


def test_a_few_mistakes_among_many_are_no_contradiction() -> None:
    assert contradiction([_picture(n, n < 2) for n in range(12)]) is None


def test_structures_of_one_size_are_not_nested() -> None:
    assert contradiction([_picture(n, n % 2 == 0, 19, 20) for n in range(6)]) is None


def test_structures_of_one_picture_may_come_from_two_corrections() -> None:
    whole = [_picture(n, n % 2 == 0) for n in range(6)]
    parts = [
        Drawn(
            f"{of.name}{name}", of.patient_key, of.modality, of.rgb, {name: mask, "lens": np.zeros_like(mask)}
        )
        for of in whole
        for name, mask in of.masks.items()
    ]
    assert contradiction(whole) and contradiction(parts)
