"""The stated reason against the knowledge base."""

from __future__ import annotations

import pytest

from medsegr.evaluation.reasons import KnownReasons
from medsegr.qa.facts import Concept, Fact, KnowledgeBase


def _concept(name: str, location: str, *facts: str) -> Concept:
    found = tuple(Fact(f"{name}.{n}", "function", text, "a book", n > 0) for n, text in enumerate(facts))
    return Concept(name, (), False, "abdomen", location, {}, found)


@pytest.fixture(scope="module")
def reasons() -> KnownReasons:
    liver = _concept(
        "liver", "in the upper right of the abdomen", "makes bile for digestion", "stores sugar as glycogen"
    )
    gallbladder = _concept(
        "gallbladder", "under the liver", "stores bile between meals", "makes bile for digestion thicker"
    )
    return KnownReasons(KnowledgeBase({"liver": liver, "gallbladder": gallbladder}))


@pytest.mark.parametrize(
    ("answer", "label", "phrase", "expected"),
    [
        ("The liver makes bile for digestion.", "liver", "liver", True),
        ("The liver lies in the upper right of the abdomen.", "liver", "liver", True),
        ("The gallbladder stores bile between meals.", "liver", "gallbladder", False),
        ("The liver stores bile between meals.", "liver", "liver", False),
        # the right reason under the wrong name is still a reason of the target
        ("The gallbladder stores sugar as glycogen.", "liver", "gallbladder", True),
        # the longest statement decides where one contains another
        ("The gallbladder makes bile for digestion thicker.", "gallbladder", "gallbladder", True),
        # nearly the same words: stores sugar as glycogen / sugar stored as glycogen here
        ("The liver keeps sugar as glycogen.", "liver", "liver", True),
        ("The liver sings in the bath every morning.", "liver", "liver", False),
        ("The liver is outlined.", "liver", "liver", None),
        ("The kidney makes bile for digestion.", "kidney", "kidney", None),
    ],
)
def test_reasons(reasons: KnownReasons, answer: str, label: str, phrase: str, expected: bool | None) -> None:
    assert reasons.holds(answer, label, phrase) is expected


def test_region_of_a_known_and_an_unknown_structure(reasons: KnownReasons) -> None:
    assert reasons.region("liver") == "abdomen" and reasons.region("kidney") is None
