"""The shipped knowledge base as a measure: held-out facts are not training facts in other words, and there is variety enough."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medsegr.commands.qa import qa
from medsegr.errors import MedSegRError
from medsegr.qa import phrasing
from medsegr.qa.facts import Concept, Fact, KnowledgeBase
from medsegr.qa.held_out import CAP, content, held_out_facts, markdown, overlap

DOCUMENT = Path(__file__).parents[2] / "docs" / "held-out-facts.md"
PHRASINGS, FACTS = 20, 6
HELD_OUT = (0.18, 0.25)


def phrasings(concept: Concept) -> set[str]:
    """Distinct implicit questions about a concept's facts, from many seeds."""
    rng = random.Random(1)
    return {phrasing.implicit_question(rng, concept, f.text) for f in concept.facts for _ in range(12)}


def concept(name: str, *facts: tuple[str, bool]) -> Concept:
    """A concept whose facts are (text, held out), with ids name.0, name.1, …"""
    made = (Fact(f"{name}.{n}", "lay", text, "none", held) for n, (text, held) in enumerate(facts))
    return Concept(name, (), False, "abdomen", "somewhere", {}, tuple(made))


def test_overlap_counts_content_words() -> None:
    assert content("Rests on the right hemidiaphragm, above the liver's ribs") == {
        "rest", "hemidiaphragm", "above", "liver", "rib",
    }  # fmt: skip
    assert content("loses its myelin in Guillain-Barré syndrome") == {
        "lose", "myelin", "guillain", "barré", "syndrome",
    }  # fmt: skip
    assert overlap("filters old red cells", "keeps red cells and filters the blood") == 0.75


def test_words_that_only_tell_like_structures_apart_do_not_count() -> None:
    assert content("stands in the patient's upper left quadrant, lower right of the patients' nose") == {
        "stand", "nose",
    }  # fmt: skip
    assert overlap("bites in the upper left quadrant", "grinds in the upper left quadrant") == 0
    assert overlap("bites in the upper left quadrant", "bites in the lower right quadrant") == 1
    assert overlap("is the left one", "is the left one") == 0


def test_a_held_out_fact_is_compared_with_the_training_facts_of_every_concept() -> None:
    base = KnowledgeBase(
        {
            c.name: c
            for c in (
                concept("first", ("filters old red cells", True), ("filters air", False)),
                concept("second", ("stores old red wine", False), ("filters old red cells twice", True)),
            )
        }
    )
    found = held_out_facts(base)
    assert [(h.concept.name, h.fact.id, h.nearest.id if h.nearest else None) for h in found] == [
        ("first", "first.0", "second.0"),
        ("second", "second.1", "second.0"),
    ]
    assert [h.overlap for h in found] == [0.5, 0.4]
    assert "| first | first.0 | filters old red cells | 0.50 | second.0 |\n" in markdown(found)


def test_without_training_facts_nothing_is_near() -> None:
    (found,) = held_out_facts(KnowledgeBase({"only": concept("only", ("filters air", True))}))
    assert (found.nearest, found.overlap) == (None, 0)
    assert "| only | only.0 | filters air | 0.00 |  |" in markdown([found])


def test_held_out_facts_share_few_words_with_any_training_fact(knowledge: KnowledgeBase) -> None:
    offenders = [
        f"{held.fact.id} ~ {held.nearest.id}: {held.overlap:.2f}"
        for held in held_out_facts(knowledge)
        if held.nearest and held.overlap > CAP
    ]
    assert offenders == []


def test_the_document_lists_the_held_out_facts_as_they_are_now(knowledge: KnowledgeBase) -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == markdown(held_out_facts(knowledge)), (
        "run: medsegr qa held-out --out docs/held-out-facts.md"
    )


def test_the_command_prints_the_list_and_writes_the_document(
    tmp_path: Path, knowledge: KnowledgeBase
) -> None:
    out = tmp_path / "list.md"
    result = CliRunner().invoke(qa, ["held-out", "--out", str(out)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    total, held = sum(len(c.facts) for c in knowledge.concepts.values()), len(knowledge.held_out_ids)
    assert "spleen.function.2" in result.output
    assert f"{held} of {total} facts are held out ({100 * held / total:.0f}%)." in result.output
    assert out.read_bytes() == DOCUMENT.read_bytes()


def test_a_document_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(MedSegRError, match=r"list\.md cannot be written: No such file or directory"):
        CliRunner().invoke(
            qa, ["held-out", "--out", str(tmp_path / "none" / "list.md")], catch_exceptions=False
        )


def test_every_target_is_asked_for_in_many_ways_over_several_facts(knowledge: KnowledgeBase) -> None:
    poor = {
        name: (len(concept.facts), len(asked))
        for name, concept in knowledge.concepts.items()
        if len(asked := phrasings(concept)) < PHRASINGS or len(concept.facts) < FACTS
    }
    assert poor == {}


def test_about_a_fifth_of_the_facts_is_held_out(knowledge: KnowledgeBase) -> None:
    facts = [fact for concept in knowledge.concepts.values() for fact in concept.facts]
    share = sum(fact.held_out for fact in facts) / len(facts)
    assert HELD_OUT[0] <= share <= HELD_OUT[1], f"{share:.3f} of {len(facts)} facts"
    assert all(concept.held_out_facts for concept in knowledge.concepts.values())
