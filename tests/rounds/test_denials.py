"""Questions about what a picture does not show: only what certainly is not there, in a fixed share."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from medsegr.qa.absence import regions_exclude
from medsegr.qa.facts import load_knowledge
from medsegr.rounds.denials import SHARE, denials, lacking, with_denials
from medsegr.rounds.examples import Drawn, training_case
from medsegr.training.images import Case

CONCEPTS = load_knowledge().concepts
KNOWN = ("liver", "optic disc", "left kidney", "lower left canine", "blood vessel")


def _case(*shown: str, absent: tuple[str, ...] = (), modality: str = "CT") -> Case:
    masks = {name: np.zeros((32, 32), np.bool_) for name in (*shown, *absent)}
    for n, name in enumerate(shown):
        masks[name][4:28, 8 * n + 2 : 8 * n + 9] = True
    drawn = Drawn("c1_0", "p", modality, np.full((32, 32, 3), 90, np.uint8), masks)
    return training_case(drawn, CONCEPTS, 32, 1)


def test_only_distant_anatomy_and_what_was_denied_is_lacking() -> None:
    own, distant = lacking(_case("liver", absent=("spleen",)), CONCEPTS, KNOWN)
    assert own == ["spleen"]
    assert distant == ["optic disc", "lower left canine"]  # not the left kidney, nor vessels


def test_a_picture_of_an_unknown_region_denies_nothing() -> None:
    assert lacking(_case("a thing nobody heard of"), CONCEPTS, KNOWN) == ([], [])
    case = _case("a thing nobody heard of")
    assert with_denials(case, CONCEPTS, KNOWN, 1) == case


def test_the_set_s_own_labels_deny_where_they_are_exhaustive() -> None:

    case = replace(_case("liver"), values={"liver": (1,), "spleen": (9,)})
    assert lacking(case, CONCEPTS, KNOWN)[0] == []
    assert lacking(replace(case, exhaustive=True), CONCEPTS, KNOWN)[0] == ["spleen"]


@pytest.mark.parametrize("absent", [(), ("spleen",)])
def test_a_fixed_share_of_what_is_asked_is_denied(absent: tuple[str, ...]) -> None:
    before = _case("liver", "left kidney", absent=absent)
    case = with_denials(before, CONCEPTS, KNOWN, 1)
    turns = [c.turns[0] for c in case.conversations]
    said = [t for t in turns if t.absent]
    assert abs(len(said) / len(turns) - SHARE) < 0.03
    assert len({c.id for c in case.conversations}) == len(turns)
    for turn in said:
        name = turn.absent[0]
        assert not turn.targets and "[SEG]" not in turn.answer and turn.answer.startswith(f"No {name} ")
        assert name in absent or regions_exclude("abdomen", CONCEPTS[name].region)
        leaks = bool(CONCEPTS[name].leak(turn.question))
        assert leaks is (turn.fact is None)
    assert with_denials(before, CONCEPTS, KNOWN, 1).conversations == case.conversations


def test_nothing_is_made_of_a_negative_count() -> None:
    assert denials(_case("liver"), CONCEPTS, KNOWN, -2, random.Random(1)) == []
