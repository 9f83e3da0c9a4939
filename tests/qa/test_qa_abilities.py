"""Questions about what was found: neighbours by hand, and answers whose form says nothing that only a mask can tell."""

from __future__ import annotations

import random
import re

import pytest

from medsegr import measured
from medsegr.model.decoding import Guide, Limits
from medsegr.model.tokens import train_tokenizer
from medsegr.qa import abilities, phrasing
from medsegr.qa.abilities import Place
from medsegr.qa.facts import KnowledgeBase
from medsegr.untrained import NameFinder

STUDY = "abdominal CT"
FOLLOW_UPS = (
    *abilities.COMPARE_FOLLOW,
    *abilities.COUNT_FOLLOW,
    *abilities.SIDE_FOLLOW,
    *abilities.WHY,
    *(question for questions in abilities.BESIDE.values() for question in questions),
)


def _questions(knowledge: KnowledgeBase, study: str = STUDY) -> set[str]:
    """Every wording of the questions that name something, about two organs, what is counted and the pairs."""
    rng = random.Random(0)
    liver, spleen = knowledge["liver"], knowledge["spleen"]
    found = set()
    for _ in range(150):
        found.add(abilities.comparison_question(rng, liver, spleen, study))
        found.add(abilities.side_question(rng, liver, study))
        for pair in abilities.PAIRS:
            left, right = (knowledge[knowledge[pair].parts[half]] for half in ("left", "right"))
            found.add(abilities.comparison_question(rng, left, right, study, pair))
    for name in abilities.COUNTED:
        found |= {abilities.count_question(rng, knowledge[name], study) for _ in range(60)}
    return found


def _answers(knowledge: KnowledgeBase) -> dict[str, str]:
    liver, spleen, kidneys = (knowledge[name] for name in ("liver", "spleen", "kidneys"))
    return {
        "comparison": abilities.comparison_answer([liver, spleen], []),
        "count": abilities.count_answer(kidneys),
        "side": abilities.side_answer(liver),
        "why": abilities.why_answer(liver, after_description=False),
    }


# --- questions ---------------------------------------------------------------------------------------------------------


def test_questions_name_what_they_ask_about_and_leave_no_gap(knowledge: KnowledgeBase) -> None:
    found = _questions(knowledge)
    assert not [question for question in (*found, *FOLLOW_UPS) if re.search(r"[{}]", question)]
    about = (
        "liver",
        *abilities.COUNTED.values(),
        *(word for pair in abilities.PAIRS.values() for word in pair),
    )
    assert not [question for question in found if not any(word in question for word in about)]
    organs = {question for question in found if "liver" in question and "spleen" in question}
    assert len(organs) == len(abilities.COMPARE)
    assert sum("liver" in question for question in found - organs) == len(abilities.SIDE)


def test_a_pair_is_asked_for_as_such_half_of_the_time(knowledge: KnowledgeBase) -> None:
    left, right = knowledge["left kidney"], knowledge["right kidney"]
    rng = random.Random(1)
    asked = [abilities.comparison_question(rng, left, right, STUDY, "kidneys") for _ in range(400)]
    named = sum("left kidney" in question and "right kidney" in question for question in asked)
    assert named == pytest.approx(200, abs=40)
    apart = {abilities.comparison_question(rng, left, right, STUDY) for _ in range(100)}
    assert all("left kidney" in question and "right kidney" in question for question in apart)


def test_what_is_counted_and_paired_is_known(knowledge: KnowledgeBase) -> None:
    knowledge.require({*abilities.COUNTED, *abilities.PAIRS})
    assert all({"left", "right"} <= set(knowledge[pair].parts) for pair in abilities.PAIRS)


def test_no_question_is_taken_for_one_about_something_unknown(knowledge: KnowledgeBase) -> None:
    finder = NameFinder(knowledge.concepts.values(), knowledge.concepts)
    studies = sorted({*phrasing.STUDIES.values(), "breast MR"})
    asked = {*FOLLOW_UPS, *(q for study in studies for q in _questions(knowledge, study))}
    assert {q: names for q in sorted(asked) if (names := finder.asked(q).untrained)} == {}


# --- answers -----------------------------------------------------------------------------------------------------------


def test_answers_begin_as_the_measuring_expects_and_hold_no_measurement(knowledge: KnowledgeBase) -> None:
    answers = _answers(knowledge)
    for kind, word in (
        ("comparison", measured.COMPARING),
        ("count", measured.COUNTING),
        ("side", measured.LOCATING),
    ):
        assert answers[kind].startswith(word)
        said = set(re.findall(r"\w+", answers[kind].lower()))
        assert not said & {"left", "right", "larger", "smaller", "two", "2", "one"}
    assert answers["comparison"] == "Comparing the <p>liver</p> [SEG] with the <p>spleen</p> [SEG]."
    assert answers["count"] == "Counting the <p>kidneys</p> [SEG]."
    assert answers["side"] == "Locating the <p>liver</p> [SEG]."


def test_an_absent_structure_is_not_compared_but_called_absent(knowledge: KnowledgeBase) -> None:
    answer = abilities.comparison_answer([knowledge["liver"]], [knowledge["spleen"]])
    assert answer == "The <p>liver</p> [SEG] is outlined; no spleen is visible."


def test_the_reason_is_a_fact_of_training_or_the_place_after_a_description(knowledge: KnowledgeBase) -> None:
    for name in ("liver", "kidneys", "cell nuclei"):
        concept = knowledge[name]
        reason = abilities.why_answer(concept, after_description=False)
        assert reason == f"The <p>{name}</p> [SEG] {concept.training_facts[0].text}."
        assert not any(fact.text in reason for fact in concept.held_out_facts)
        place = abilities.why_answer(concept, after_description=True)
        assert place == f"The <p>{name}</p> [SEG] {'lie' if concept.plural else 'lies'} {concept.location}."


@pytest.mark.parametrize("kind", ["comparison", "count", "side", "why"])
def test_every_form_may_be_written_where_the_reasons_are_known(knowledge: KnowledgeBase, kind: str) -> None:
    """What `Guide` rules out cannot be generated, however well it was learnt."""
    answers = _answers(knowledge)
    tokenizer = train_tokenizer([*answers.values(), "The <p>spleen</p> [SEG] filters blood."])
    known = {
        "liver": knowledge["liver"].training_facts[0].text,
        "spleen": "filters blood",
        "kidneys": "make urine",
    }
    reasons = {name: (f"{text}.",) for name, text in known.items()}
    guide = Guide(tokenizer, Limits(tuple(known), reasons=reasons))
    for token in tokenizer.encode(answers[kind], add_special_tokens=False):
        nexts = guide._nexts()
        written = tokenizer.decode([token])
        assert nexts is None or token in nexts, f"'{written}' may not follow in '{answers[kind]}'"
        guide.step(token)


# --- neighbours --------------------------------------------------------------------------------------------------------


def test_the_nearest_in_each_direction() -> None:
    """As (row, column): a cross around the centre, a farther one below, and one that is neither below nor to the right."""
    places = {
        "centre": Place(0.5, 0.5),
        "up": Place(0.2, 0.5),
        "down": Place(0.7, 0.55),
        "far down": Place(0.95, 0.5),
        "west": Place(0.45, 0.1),
        "east": Place(0.5, 0.9),
        "corner": Place(0.8, 0.8),
    }
    assert abilities.neighbours(places, "centre") == {
        "above": "up",
        "below": "down",
        "left": "west",
        "right": "east",
    }
    # 0.2 and 0.25 away, below: about as near as each other
    places["down as well"] = Place(0.75, 0.5)
    assert "below" not in abilities.neighbours(places, "centre")


def test_directions_are_mutual_and_none_is_alone_in_itself() -> None:
    places = {"a": Place(0.2, 0.5), "b": Place(0.8, 0.5)}
    assert abilities.neighbours(places, "a") == {"below": "b"}
    assert abilities.neighbours(places, "b") == {"above": "a"}
    assert abilities.neighbours({"a": places["a"]}, "a") == {}
    assert abilities.neighbours({"a": Place(0.2, 0.2), "b": Place(0.6, 0.6)}, "a") == {}, "on the diagonal"
