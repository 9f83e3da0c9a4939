"""Distances to the nearest known image, by hand."""

from __future__ import annotations

import pytest

from medsegr.choosing.diversity import distances


def test_the_nearest_known_counts() -> None:
    found = distances([(0.0, 0.0), (3.0, 4.0), (1.0, 0.0)], [(0.0, 0.0), (3.0, 0.0)])
    assert found is not None and found.tolist() == pytest.approx([0.0, 4.0, 1.0])


def test_vectors_of_another_length_are_not_compared() -> None:
    found = distances([(3.0, 4.0), ()], [(0.0, 0.0), (1.0, 1.0, 1.0)])
    assert found is not None and found.tolist() == pytest.approx([5.0, 0.0])


@pytest.mark.parametrize("known", [[], [()], [(1.0,)]])
def test_nothing_to_compare_with(known: list[tuple[float, ...]]) -> None:
    assert distances([(0.0, 1.0)], known) is None
    assert distances([(), ()], [(0.0, 1.0)]) is None
