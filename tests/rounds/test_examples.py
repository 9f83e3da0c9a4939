"""Corrections as training examples: overlapping masks in one label map, and conversations that say what was corrected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medsegr.qa.facts import Concept, load_knowledge
from medsegr.rounds.examples import Drawn, combined, concept_of, named_again, training_case

SIDE = 64
CONCEPTS = load_knowledge().concepts


def _square(low: int, high: int) -> np.ndarray:
    mask = np.zeros((48, 96), np.bool_)
    mask[low:high, 2 * low : 2 * high] = True
    return mask


def _drawn(**changes: object) -> Drawn:
    masks = {
        "optic disc": _square(8, 40),
        "optic cup": _square(16, 32),
        "spleen": np.zeros((48, 96), np.bool_),
    }
    given = {"masks": masks, "question": "Outline the optic cup.", "asked": ("optic cup",), **changes}
    return Drawn("c1_0", "patient", "FUNDUS", np.full((48, 96, 3), 90, np.uint8), **given)  # type: ignore[arg-type]


def test_overlapping_masks_are_unions_of_values() -> None:
    disc, cup = _square(8, 40)[:, ::2], _square(16, 32)[:, ::2]
    codes, values = combined({"disc": disc, "cup": cup}, 48)
    assert np.array_equal(np.isin(codes, values["disc"]), disc)
    assert np.array_equal(np.isin(codes, values["cup"]), cup)
    assert set(values["cup"]) < set(values["disc"])


def test_every_structure_is_asked_for_and_what_is_missing_is_denied() -> None:
    case = training_case(_drawn(), CONCEPTS, SIDE, 1)
    assert case.rgb.shape == (SIDE, SIDE, 3) and case.labels.shape == (SIDE, SIDE)
    assert case.present == {"optic disc", "optic cup"} and case.absent == {"spleen"}
    turns = [c.turns[0] for c in case.conversations]
    asked = {t.targets[0].label for t in turns if t.kind == "explicit"}
    assert asked == {"optic disc", "optic cup"}
    denials = [t for t in turns if t.kind == "absent_same_set"]
    assert denials and all(t.answer.startswith("No spleen is visible") and not t.targets for t in denials)
    assert any(len(t.targets) == 2 for t in turns)
    for turn in turns:
        assert turn.answer.count("[SEG]") == len(turn.targets)


def test_the_clinicians_own_question_is_kept() -> None:
    own = [
        c
        for c in training_case(_drawn(), CONCEPTS, SIDE, 1).conversations
        if c.turns[0].question == "Outline the optic cup."
    ]
    assert own and own[-1].turns[0].targets[0].label == "optic cup"
    lost = _drawn(masks={"optic cup": np.zeros((48, 96), np.bool_)})
    denied = training_case(lost, CONCEPTS, SIDE, 1).conversations[-1].turns[0]
    assert denied.question == "Outline the optic cup." and denied.answer.startswith("No optic cup")


def test_a_structure_that_the_knowledge_base_lacks_is_outlined_by_its_name() -> None:
    told = concept_of("drusen", CONCEPTS, {"names": ["drusen", "yellow deposits"]})
    assert told.leak("Where are the yellow deposits?")
    case = training_case(
        _drawn(masks={"cotton wool spot": _square(8, 40)}, question="", asked=()), CONCEPTS, SIDE, 1
    )
    answers = {c.turns[0].answer for c in case.conversations}
    assert answers == {"The <p>cotton wool spot</p> [SEG] is outlined."}


FACTS = ["drains the aqueous humour", "lies at the edge of the cornea"]


def test_what_a_clinician_says_is_asked_by_and_said_in_the_answer() -> None:
    said = {"names": ["angle"], "location": "between iris and cornea", "facts": FACTS}
    told = concept_of("trabecular meshwork", {}, said)
    assert [fact.text for fact in told.training_facts] == FACTS and told.held_out_facts == ()
    other_order = concept_of("trabecular meshwork", {}, {**said, "facts": FACTS[::-1]})
    assert {f.text: f.id for f in told.facts} == {f.text: f.id for f in other_order.facts}
    assert len({f.id for f in told.facts}) == 2
    masks = {"trabecular meshwork": _square(8, 40)}
    case = training_case(_drawn(masks=masks, question="", asked=()), {told.name: told}, SIDE, 1)
    turns = [c.turns[0] for c in case.conversations]
    implicit = [turn for turn in turns if turn.kind == "implicit"]
    assert {turn.answer for turn in implicit} == {
        f"The <p>trabecular meshwork</p> [SEG] {fact}." for fact in FACTS
    }
    assert {turn.fact for turn in implicit} == {fact.id for fact in told.facts}
    for turn in implicit:
        assert any(fact in turn.question for fact in FACTS) and not told.leak(turn.question)
    by_name = {turn.answer for turn in turns if turn.kind == "explicit"}
    assert by_name == {"The <p>trabecular meshwork</p> [SEG] lies between iris and cornea."}


def test_what_a_clinician_says_goes_beside_the_knowledge_base() -> None:
    known: Concept = CONCEPTS["optic disc"]
    assert concept_of("optic disc", CONCEPTS) is known
    said = {
        "names": ["Papille", known.synonyms[0].upper()],
        "location": "elsewhere",
        "facts": [known.facts[0].text, "is where a Papille would be", "is pale in glaucoma"],
    }
    told = concept_of("optic disc", CONCEPTS, said)
    assert told.synonyms == (*known.synonyms, "Papille") and told.location == known.location
    assert [fact.text for fact in told.facts[len(known.facts) :]] == ["is pale in glaucoma"]
    assert told.leak("Where is the Papille?") and known.leak("Where is the Papille?") is None


def test_everything_that_a_remembered_picture_shows_is_asked_for_again() -> None:
    case = training_case(_drawn(), CONCEPTS, SIDE, 1)
    again = named_again(replace(case, conversations=case.conversations[:1]), CONCEPTS, 2, 1)
    turns = [c.turns[0] for c in again.conversations[1:]]
    assert sorted(t.targets[0].label for t in turns) == ["optic cup"] * 2 + ["optic disc"] * 2
    for turn in turns:
        label = turn.targets[0].label
        assert CONCEPTS[label].leak(turn.question) and turn.targets[0].value == case.values[label]
    assert len({c.id for c in again.conversations}) == 5
    bare = replace(case, conversations=())
    assert named_again(bare, CONCEPTS, 2, 1) == bare
