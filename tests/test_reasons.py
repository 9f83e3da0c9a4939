"""Which sentence explains what was asked, with vectors chosen by hand in place of the sentence encoder's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from medsegr.qa.facts import Concept, Fact
from medsegr.reasons import Reasons, sayable

ANGLES = {
    "makes bile.": 0,
    "makes bile and more.": 20,
    "stores sugar.": 55,
    "lies on the right.": 100,
    "weighs much.": 120,
}
"""Each sentence's direction in the plane, in degrees; a question has its own in its words."""


class Encoder:
    """Directions instead of meanings; counts what it is given. The pooled vector comes first, as in `SentenceEncoder`."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def encode(self, sentences: Sequence[str]) -> list[torch.Tensor]:
        self.read += sentences
        angles = [math.radians(ANGLES[s] if s in ANGLES else float(s)) for s in sentences]
        return [torch.tensor([[5 * math.cos(a), 5 * math.sin(a)], [7.0, 7.0]]).half() for a in angles]


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


def _reasons(encoder: Any) -> Reasons:
    return Reasons({"liver": tuple(ANGLES), "spleen": ("filters blood.",)}, encoder)


def test_the_sentences_near_the_question_are_left_the_nearest_first(encoder: Encoder) -> None:
    """Cosines with 15 degrees: 0.97, 0.996, 0.77 and less; with 60: 0.5, 0.77, 0.996, 0.77, 0.5."""
    reasons = _reasons(encoder)
    assert reasons.to("15")["liver"] == ("makes bile and more.", "makes bile.")
    assert reasons.to(" 60 ")["liver"] == ("stores sugar.",)


def test_no_more_than_three_are_left(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsegr.reasons.MARGIN", 1.0)
    assert _reasons(encoder).to("0")["liver"] == ("makes bile.", "makes bile and more.", "stores sugar.")


def test_a_question_that_no_sentence_answers_leaves_all(encoder: Encoder) -> None:
    assert _reasons(encoder).to("220")["liver"] == tuple(ANGLES), "the nearest has a cosine of -0.17"


def test_an_empty_question_or_no_encoder_leaves_all(encoder: Encoder) -> None:
    assert _reasons(encoder).to("  ")["liver"] == tuple(ANGLES)
    assert _reasons(None).to("15")["liver"] == tuple(ANGLES)
    assert encoder.read == []


def test_sentences_are_embedded_once_and_only_of_what_is_looked_up(encoder: Encoder) -> None:
    reasons = _reasons(encoder)
    near = reasons.to("15")
    assert "liver" in near and "heart" not in near and len(near) == 2 and encoder.read == []
    for question in ("15", "60"):
        assert reasons.to(question)["liver"]
    assert reasons.to("15")["spleen"] == ("filters blood.",), "one sentence needs no comparison"
    assert encoder.read == [*ANGLES, "15", "60"]
    with pytest.raises(KeyError):
        near["heart"]


def test_what_may_only_be_asked_with_is_not_said() -> None:
    facts = (
        Fact("liver.function", "function", "makes bile", "", False),
        Fact("liver.disease", "disease", "may fail", "", False),
        Fact("liver.more.1", "function", "keeps vitamins", "", False),
    )
    liver = Concept("liver", (), False, "abdomen", "on the right", {}, facts)
    said = {"liver": ["makes bile.", "may fail.", "keeps vitamins.", "lies on the right."]}
    assert sayable(said, [liver]) == {"liver": ("makes bile.", "lies on the right.")}
