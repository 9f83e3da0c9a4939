"""The rule by which a structure asked for by name is called absent, against the logistic function worked out by hand."""

from __future__ import annotations

import math

import pytest

from medsegr.denial import NEVER, SMALLEST, least_no, said_logit


def test_the_least_no_is_where_the_logistic_sum_is_zero() -> None:
    for overview in (-3.0, 0.0, 4.0):
        least = least_no((2.0, -1.0, 1.0), overview)
        assert 2.0 * said_logit(least) - overview + 1.0 == pytest.approx(0.0, abs=1e-9)
    assert least_no((1.0, -1.0, 0.0), 0.0) == 0.5
    assert least_no((1.0, -1.0, 0.0), math.log(9)) == pytest.approx(0.9), "what is seen takes a surer No"


def test_what_shows_clearly_is_never_denied_and_what_shows_nothing_always() -> None:
    rule = (0.1, -1.0, 0.0)
    assert least_no(rule, 3.0) == NEVER and least_no(rule, -3.0) == 0.0
    for said in (0.0, -1.0):
        assert least_no((said, -1.0, 0.0), 3.0) == NEVER, "a word that tells nothing is not heard"
        assert least_no((said, -1.0, 0.0), -3.0) == 0.0


def test_the_logit_of_a_word_is_bounded() -> None:
    assert said_logit(0.5) == 0.0 and said_logit(0.9) == pytest.approx(math.log(9))
    assert said_logit(0.0) == said_logit(SMALLEST) == pytest.approx(-said_logit(1.0))
