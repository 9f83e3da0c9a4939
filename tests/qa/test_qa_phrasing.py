"""Answers have one exact form; questions agree in number with what they ask for."""

from __future__ import annotations

import random

from medsegr.qa import phrasing
from medsegr.qa.facts import Concept, Fact

ONE = Concept(
    "left lung", (), False, "chest", "beside the heart", {}, (Fact("f", "lay", "breathes", "s", False),)
)
MANY = Concept("lungs", (), True, "chest", "on both sides of the heart", {}, ())


def test_there_are_enough_templates_and_none_twice() -> None:
    for templates, least in (
        (phrasing.EXPLICIT, 12), (phrasing.IMPLICIT, 14), (phrasing.MULTI, 8), (phrasing.ALL, 6),
    ):  # fmt: skip
        assert len(templates) == len(set(templates)) >= least
    assert "" in phrasing.ALL


def test_answers_have_their_exact_form() -> None:
    assert phrasing.explicit_answer(ONE) == "The <p>left lung</p> [SEG] lies beside the heart."
    assert phrasing.explicit_answer(MANY) == "The <p>lungs</p> [SEG] lie on both sides of the heart."
    assert phrasing.implicit_answer(ONE, "breathes") == "The <p>left lung</p> [SEG] breathes."
    assert phrasing.absent_answer(ONE, "chest X-ray") == "No left lung is visible in this chest X-ray."
    assert phrasing.absent_answer(MANY, "chest X-ray") == "No lungs are visible in this chest X-ray."


def test_answers_to_several_names() -> None:
    lung, lungs = "the <p>left lung</p> [SEG]", "the <p>lungs</p> [SEG]"
    assert phrasing.multi_answer([ONE, MANY], []) == f"T{lung[1:]} and {lungs} are outlined."
    assert phrasing.multi_answer([ONE], [MANY]) == f"T{lung[1:]} is outlined; no lungs are visible."
    assert phrasing.multi_answer([MANY], [ONE]) == f"T{lungs[1:]} are outlined; no left lung is visible."
    assert phrasing.multi_answer([ONE], [MANY, ONE]).endswith("; no lungs and no left lung are visible.")


def test_answers_to_everything() -> None:
    assert phrasing.all_answer([], "brain MR") == "No known structure is visible in this brain MR."
    assert phrasing.all_answer([ONE], "x") == "Visible here: <p>left lung</p> [SEG]."
    three = phrasing.all_answer([ONE, MANY, ONE], "x")
    assert three == "Visible here: <p>left lung</p> [SEG], <p>lungs</p> [SEG] and <p>left lung</p> [SEG]."


def test_questions_agree_in_number() -> None:
    rng = random.Random(0)
    many = {phrasing.implicit_question(rng, MANY, "breathe") for _ in range(300)}
    assert len(many) == len(phrasing.IMPLICIT)
    assert "Which structures here breathe?" in many
    assert "Are there structures here that breathe? Outline them." in many
    one = {phrasing.implicit_question(rng, ONE, "breathes") for _ in range(300)}
    assert {"Tell me what breathes.", "Is there a structure here that breathes? Outline it."} <= one
    names = {phrasing.explicit_question(rng, MANY, "chest X-ray") for _ in range(300)}
    assert {"Where are the lungs?", "Mark the lungs in this chest X-ray."} <= names
    assert not any("{" in question for question in many | one | names)


def test_studies_are_called_as_people_call_them() -> None:
    assert phrasing.study_name("breast", "XR") == "mammogram"
    assert phrasing.study_name("skin", "DERM") == "skin photograph"
    assert phrasing.study_name("heart", "CT") == "cardiac CT"
    assert phrasing.study_name("limb", "MR") == "limb MR"
