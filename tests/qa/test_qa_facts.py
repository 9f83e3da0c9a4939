"""The knowledge base: loading, look-ups, give-away words, and the quality of what ships."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from pydicom.sr._concepts_dict import concepts as coded

from medsegr.errors import MedSegRError
from medsegr.qa import phrasing
from medsegr.qa.facts import Code, KnowledgeBase, load_knowledge, read_knowledge, read_more_facts

ENTRY = """
- name: optic disc
  synonyms: [optic nerve head, papilla]
  plural: false
  region: eye
  code: {scheme: SCT, value: "81016008", meaning: Optic nerve head}
  location: on the nasal side of the macula
  facts:
    - {id: optic_disc.lay, kind: lay, text: is the blind spot of the eye, source: textbook, held_out: true}
"""


def test_a_name_beats_a_synonym_and_case_does_not_matter(knowledge: KnowledgeBase) -> None:
    assert [c.name for c in knowledge.find("Liver ")] == ["liver"]
    assert [c.name for c in knowledge.find("gall bladder")] == ["gallbladder"]
    assert {"left kidney", "right kidney"} <= {c.name for c in knowledge.find("kidney")}
    assert knowledge.find("unicorn") == ()


def test_a_leak_is_a_whole_word_also_in_the_plural(knowledge: KnowledgeBase) -> None:
    molars = knowledge["molars"]
    assert molars.leak("Which structures stand behind the premolars?") is None
    assert molars.leak("Show me a molar tooth.") == "molar"
    assert knowledge["foot ulcer"].leak("Are there Wounds here?") == "Wounds"


def test_missing_entries_are_all_named_in_one_error(knowledge: KnowledgeBase) -> None:
    with pytest.raises(MedSegRError, match="2 of the targets: dragon scale, unicorn horn"):
        knowledge.require(["liver", "unicorn horn", "dragon scale"])
    with pytest.raises(MedSegRError, match="'unicorn horn'"):
        knowledge["unicorn horn"]


def test_extra_entries_are_added_and_replace_shipped_ones(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(ENTRY + ENTRY.replace("optic disc", "liver"))
    extended = load_knowledge(path)
    assert extended["optic disc"].held_out_facts[0].text == "is the blind spot of the eye"
    assert len(extended["liver"].facts) == 1
    assert "optic disc" in load_knowledge(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("region: eye", "region: moon"), "region is 'moon'"),
        (("kind: lay", "kind: gossip"), "kind is 'gossip'"),
        (("  location: on the nasal side of the macula\n", ""), "'location' is None"),
        (("- name: optic disc", "- name: ''"), "'name' is ''"),
        (("held_out: true", "held_out: soon"), "held_out is 'soon'"),
        (('value: "81016008"', "value: 81016008"), "code: 'value' is 81016008; expected text"),
        (('value: "81016008", ', ""), "code: 'value' is None; expected text"),
        (("scheme: SCT", "scheme: SCT, version: 1"), "code has the keys version; expected scheme, value and"),
        (('{scheme: SCT, value: "81016008", meaning: Optic nerve head}', "81016008"), "code is int"),
    ],
)
def test_a_broken_entry_is_named_with_its_file(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(ENTRY.replace(*change))
    with pytest.raises(MedSegRError, match=message) as caught:
        read_knowledge(path)
    assert "broken.yaml, entry 1" in str(caught.value)


def test_no_shipped_fact_gives_its_structure_away(knowledge: KnowledgeBase) -> None:
    leaks = [(f.id, c.leak(f.text)) for c in knowledge.concepts.values() for f in c.facts if c.leak(f.text)]
    assert leaks == []


def test_no_implicit_template_gives_a_structure_away(knowledge: KnowledgeBase) -> None:
    templates = " ".join((*phrasing.IMPLICIT, *phrasing.FOLLOW_IMPLICIT))
    words = templates + " structures part parts one ones which what them it is are"
    assert [(c.name, c.leak(words)) for c in knowledge.concepts.values() if c.leak(words)] == []


def test_shipped_facts_are_unique_and_some_are_held_out(knowledge: KnowledgeBase) -> None:
    facts = [fact for concept in knowledge.concepts.values() for fact in concept.facts]
    assert [i for i, n in Counter(f.id for f in facts).items() if n > 1] == []
    assert [t for t, n in Counter(f.text for f in facts).items() if n > 1] == []
    assert all(c.training_facts and c.held_out_facts for c in knowledge.concepts.values())


def test_parts_of_pairs_are_known(knowledge: KnowledgeBase) -> None:
    knowledge.require(part for concept in knowledge.concepts.values() for part in concept.parts.values())


def test_tooth_numbers_agree_between_the_two_numberings(knowledge: KnowledgeBase) -> None:
    def numbers(name: str) -> set[str]:
        return {f.text for f in knowledge[name].facts if f.kind == "number"}

    expected = {
        "upper right third molar": (18, 1),
        "upper left first molar": (26, 14),
        "lower left third molar": (38, 17),
        "lower right central incisor": (41, 25),
    }
    for name, (fdi, universal) in expected.items():
        assert numbers(name) >= {
            f"carries the FDI number {fdi}",
            f"is number {universal} in the Universal numbering",
        }


def test_every_kind_of_tooth_fact_is_trained_on_in_other_teeth(knowledge: KnowledgeBase) -> None:
    teeth = [c for c in knowledge.concepts.values() if c.region == "jaw" and not c.plural]
    assert len(teeth) == 32
    assert all(len(c.facts) >= 40 and len(c.held_out_facts) >= 6 for c in teeth)
    held = Counter(f.kind for c in teeth for f in c.held_out_facts)
    learnt = Counter(f.kind for c in teeth for f in c.training_facts)
    assert held["number"] == 0  # a number that was never told cannot be known
    for kind in ("neighbour", "location", "lay", "function", "appearance"):
        assert 0 < held[kind] < learnt[kind]


def test_more_facts_are_added_to_shipped_entries_and_not_to_those_that_replace_them(tmp_path: Path) -> None:
    spleen = load_knowledge()["spleen"]
    assert {"spleen.function.1", "spleen.more.1"} <= {f.id for f in spleen.facts}
    assert {f.held_out for f in spleen.facts if ".more." in f.id} == {True, False}
    own = tmp_path / "own.yaml"
    own.write_text(
        "- {name: spleen, region: abdomen, location: on the left, facts: [{id: s.1, kind: lay, text: is mine, source: me}]}",
        encoding="utf-8",
    )
    assert [f.id for f in load_knowledge(own)["spleen"].facts] == ["s.1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {facts: {lay: [is red]}}", "'about' is None"),
        ("- {about: spleen, facts: {colour: [is red]}}", "'colour' is no list of facts of one kind"),
        ("- {about: spleen, facts: {lay: is red}}", "'lay' is no list of facts"),
        ("- {about: spleen, held_out: {lay: [3]}}", "'text' is 3"),
        ("about: spleen", "expected a list of entries"),
    ],
)
def test_a_broken_list_of_more_facts_is_named_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MedSegRError, match=f"more.yaml.*{re.escape(message)}"):
        read_more_facts(path)


def test_a_coded_concept_is_read_and_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "coded.yaml"
    path.write_text(ENTRY)
    (concept,) = read_knowledge(path)
    assert concept.code == Code("SCT", "81016008", "Optic nerve head")
    path.write_text("".join(line for line in ENTRY.splitlines(keepends=True) if "code:" not in line))
    (concept,) = read_knowledge(path)
    assert concept.code is None


def test_shipped_codes_are_those_of_the_dicom_dictionaries(knowledge: KnowledgeBase) -> None:
    known = {
        Code("SCT", value, meaning)
        for values in coded["SCT"].values()
        for value, (meaning, *_) in values.items()
    }
    assert [(c.name, c.code) for c in knowledge.concepts.values() if c.code and c.code not in known] == []
    others = [c for c in knowledge.concepts.values() if c.region != "jaw"]
    assert sum(c.code is not None for c in others) >= 0.6 * len(others)
    assert knowledge["lower left first molar"].code == Code(
        "SCT", "89625000", "Mandibular left first molar tooth"
    )


def test_structures_outside_the_training_sets_are_known_by_their_own_words(knowledge: KnowledgeBase) -> None:
    for name in (
        "optic disc",
        "optic cup",
        "neuroretinal rim",
        "white blood cell",
        "white blood cell nucleus",
    ):
        assert knowledge.find(name.upper()) == (knowledge[name],)
    assert [c.name for c in knowledge.find("optic nerve head")] == ["optic disc"]
    assert [c.name for c in knowledge.find("womb")] == ["uterus"]
