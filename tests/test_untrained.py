"""What a question asks for by name, and whether the checkpoint ever learnt it."""

from __future__ import annotations

import pytest

from medsegr.qa import phrasing
from medsegr.qa.facts import KnowledgeBase, load_knowledge
from medsegr.untrained import NameFinder, refusal_text

TARGETS = ("liver", "left lung", "right lung", "spleen", "nuclei", "left kidney", "right kidney")


@pytest.fixture(scope="module")
def knowledge() -> KnowledgeBase:
    return load_knowledge()


@pytest.fixture(scope="module")
def finder(knowledge: KnowledgeBase) -> NameFinder:
    return NameFinder(knowledge.concepts.values(), TARGETS)


@pytest.mark.parametrize(
    ("question", "trained", "untrained"),
    [
        ("Outline the liver.", ("liver",), ()),
        ("Where is the thyroid gland?", (), ("thyroid gland",)),
        ("the prostate, please", (), ("prostate",)),
        ("PROSTATE", (), ("prostate",)),
        ("Is there a pneumothorax?", (), ("pneumothorax",)),
        ("Segment the liver and the prostate.", ("liver",), ("prostate",)),
        (
            "And the left lung upper lobe?",
            (),
            ("left lung upper lobe",),
        ),  # longer than the target's name in it
        ("Mark the liver tumour on this CT.", (), ("liver tumour",)),
        ("Show me the white blood cell nucleus.", (), ("white blood cell nucleus",)),
    ],
)
def test_names_that_are_asked_for(
    finder: NameFinder, question: str, trained: tuple[str, ...], untrained: tuple[str, ...]
) -> None:
    asked = finder.asked(question)
    assert (asked.trained, asked.untrained) == (trained, untrained)


@pytest.mark.parametrize(
    "question",
    [
        "",
        "Which organ stores bile?",
        "Outline the organ beside the duodenum.",
        "Segment the part that is measured at the level where the thalami appear.",
        "Outline the structures that are absent from mature red corpuscles and platelets.",
        "Only the left one, please.",
    ],
)
def test_names_in_a_description_are_landmarks(finder: NameFinder, question: str) -> None:
    assert finder.asked(question).untrained == ()


def test_every_template_with_every_untrained_name_is_recognised(
    finder: NameFinder, knowledge: KnowledgeBase
) -> None:
    templates = (*phrasing.EXPLICIT, *phrasing.FOLLOW_EXPLICIT)
    for concept in knowledge.concepts.values():
        if concept.name in TARGETS:
            continue
        be = "are" if concept.plural else "is"
        for template in templates:
            question = template.format(be=be, Be=be.title(), name=concept.name, study="picture")
            asked = finder.asked(question)
            assert asked.untrained and not asked.trained, question


def test_no_training_fact_of_a_target_looks_untrained(finder: NameFinder, knowledge: KnowledgeBase) -> None:
    """Every implicit template with every fact, held out or not, of every concept: a description is never refused."""
    for concept in knowledge.concepts.values():
        for fact in concept.facts:
            for template in (*phrasing.IMPLICIT, *phrasing.FOLLOW_IMPLICIT):
                question = template.format(
                    fact=fact.text,
                    s="",
                    one="one",
                    part="part",
                    be="is",
                    Be="Is",
                    a="a ",
                    it="it",
                    what="what",
                )
                assert finder.asked(question).untrained == (), question


def test_the_refusal_names_what_was_asked_for() -> None:
    assert "outline prostate, so" in refusal_text(("prostate",))
    assert "outline a, b or c, so" in refusal_text(("a", "b", "c"))
