"""Conversations built from labelled folders: true, repeatable, and free of held-out facts in training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from medsegr.errors import MedSegRError
from medsegr.qa.builder import Mix, build, build_file, evaluation_questions
from medsegr.qa.checks import check_file
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.folders import read_labelled_set
from medsegr.qa.reader import read_qa, write_qa
from medsegr.qa.scenes import read_scenes
from medsegr.qa.schema import KINDS, Conversation


@pytest.fixture
def built(data_dir: Path, knowledge: KnowledgeBase) -> list[Conversation]:
    return list(build(data_dir, knowledge, seed=1, count=600))


def test_the_same_seed_gives_the_same_conversations(
    data_dir: Path, knowledge: KnowledgeBase, built: list[Conversation]
) -> None:
    assert built == list(build(data_dir, knowledge, seed=1, count=600))
    assert built[:50] == list(build(data_dir, knowledge, seed=1, count=50))
    assert built != list(build(data_dir, knowledge, seed=2, count=600))
    assert len({c.id for c in built}) == 600


def test_every_kind_and_every_image_with_a_known_answer_is_used(built: list[Conversation]) -> None:
    assert {t.kind for c in built for t in c.turns} == set(KINDS)
    assert {Path(c.image).stem for c in built} == {
        "full", "one_kidney", "edge", "seen", "drawn", "bare", "held", "n1", "n2"
    }  # fmt: skip
    several = sum(len(c.turns) > 1 for c in built) / len(built)
    assert several == pytest.approx(0.35, abs=0.06)
    assert max(len(c.turns) for c in built) == 3


def test_a_built_file_passes_its_checks_wherever_it_lies(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "deep" / "qa.jsonl"
    assert build_file(data_dir, out, seed=3, count=400) == 400
    assert check_file(out) == []
    first = next(read_qa(out))
    assert first.image.startswith("../../data/")
    assert (out.parent / first.image).is_file()


def test_held_out_facts_are_never_in_training(built: list[Conversation], knowledge: KnowledgeBase) -> None:
    used = {(c.split, t.fact in knowledge.held_out_ids) for c in built for t in c.turns if t.fact}
    assert used == {("train", False), ("val", False), ("val", True)}
    held = [f.text for c in knowledge.concepts.values() for f in c.held_out_facts]
    spoken = " ".join(t.question + t.answer for c in built if c.split == "train" for t in c.turns)
    assert not [text for text in held if f" {text}." in spoken or f" {text}?" in spoken]


def test_answers_are_a_function_of_what_was_asked_and_what_is_there(
    built: list[Conversation], knowledge: KnowledgeBase
) -> None:
    facts = {f.id: f.text for c in knowledge.concepts.values() for f in c.facts}
    for turn in (t for c in built for t in c.turns):
        if turn.kind == "explicit":
            (target,) = turn.targets
            concept = knowledge[target.label]
            lies = "lie" if concept.plural else "lies"
            assert turn.answer == f"The <p>{target.label}</p> [SEG] {lies} {concept.location}."
        elif turn.kind == "implicit":
            assert turn.fact is not None
            assert turn.answer == f"The <p>{turn.targets[0].label}</p> [SEG] {facts[turn.fact]}."
            assert facts[turn.fact] in turn.question
        elif turn.kind == "multi":
            assert 2 <= len(turn.targets) + len(turn.absent) <= 3
            assert all(f"the {n}" in turn.question for n in (*(t.label for t in turn.targets), *turn.absent))
        elif turn.kind.startswith("absent"):
            (name,) = turn.absent
            assert re.fullmatch(rf"No {name} (is|are) visible in this [\w -]+\.", turn.answer)
        elif turn.kind == "comparison" and turn.absent:
            (name,) = turn.absent
            assert len(turn.targets) == 1 and re.search(
                rf"outlined; no {name} (is|are) visible\.$", turn.answer
            )
        elif turn.kind == "comparison":
            one, other = (f"<p>{target.label}</p> [SEG]" for target in turn.targets)
            assert turn.answer == f"Comparing the {one} with the {other}."
        elif turn.kind in {"count", "side"}:
            (target,) = turn.targets
            verb = "Counting" if turn.kind == "count" else "Locating"
            assert turn.answer == f"{verb} the <p>{target.label}</p> [SEG]."
            assert turn.kind == "count" or not {"left", "right"} & set(target.label.split())


def test_what_is_compared_has_nothing_in_common(built: list[Conversation]) -> None:
    compared = [t.targets for c in built for t in c.turns if t.kind == "comparison" and not t.absent]
    assert compared and all(not set(one.value) & set(other.value) for one, other in compared)


def test_targets_that_overlap_are_not_compared(
    tmp_path: Path, knowledge: KnowledgeBase, make_set: Callable[..., Path]
) -> None:
    """Of the spleen, 1, the liver, 1 and 2, and the stomach, 2 and 3, none contains another that is shown."""
    make_set(
        tmp_path / "overlapping", {"a": ("A", "train", {1: 40, 2: 40, 3: 40})}, modality="CT", region="abdomen",
        targets={"spleen": [1, 4], "liver": [1, 2], "stomach": [2, 3]},
    )  # fmt: skip
    mix = Mix(comparison=1, **dict.fromkeys(("explicit", "implicit", "multi", "all", "count", "side"), 0.0))
    built = list(build(tmp_path, knowledge, seed=1, count=60, mix=mix))
    compared = {
        frozenset(t.label for t in c.turns[0].targets) for c in built if c.turns[0].kind == "comparison"
    }
    assert compared == {frozenset({"spleen", "stomach"})}


def test_follow_ups_ask_about_what_was_just_outlined(data_dir: Path, knowledge: KnowledgeBase) -> None:
    mix = Mix(several_turns=1, about_before=1)
    pairs = [
        (one, two)
        for c in build(data_dir, knowledge, seed=1, count=500, mix=mix)
        for one, two in zip(c.turns, c.turns[1:], strict=False)
    ]
    by_kind = {two.kind for _, two in pairs}
    assert {"why", "side", "count", "neighbour", "comparison"} <= by_kind
    for one, two in pairs:
        if two.kind in {"why", "side", "count", "comparison"}:
            assert two.targets == one.targets, "in the same order"
            assert two.kind != one.kind
        elif two.kind == "neighbour":
            assert len(one.targets) == len(two.targets) == 1 and one.targets != two.targets
    reasons = {(one.kind == "implicit", two.answer) for one, two in pairs if two.kind == "why"}
    for described, answer in reasons:
        assert any(
            answer.endswith(f" {c.location}." if described else f" {c.training_facts[0].text}.")
            for c in knowledge.concepts.values()
        )


def test_what_is_absent_is_measured_by_no_one(data_dir: Path, knowledge: KnowledgeBase) -> None:
    only = dict.fromkeys(("explicit", "implicit", "multi", "all", "absent_same_set", "absent_elsewhere"), 0.0)
    mix = Mix(**only, several_turns=0, absent_measured=1, comparison=1, count=1, side=1)
    turns = [(Path(c.image).stem, c.turns[0]) for c in build(data_dir, knowledge, seed=1, count=300, mix=mix)]
    edge = [turn for stem, turn in turns if stem == "edge"]
    assert {turn.kind for turn in edge} == {"absent_same_set"} and all(not turn.targets for turn in edge)
    counted = [turn for turn in edge if turn.absent == ("kidneys",) and "kidneys" in turn.question]
    assert {turn.answer for turn in counted} == {"No kidneys are visible in this abdominal CT."}
    lacking = [turn for stem, turn in turns if stem == "one_kidney" and turn.kind == "comparison"]
    assert lacking and all(len(turn.targets) == len(turn.absent) == 1 for turn in lacking)


def test_places_are_the_centroids_of_what_contains_nothing_else(
    tmp_path: Path, make_set: Callable[..., Path]
) -> None:
    """The spleen fills the first row of 32, the right kidney the left half of the second; the kidneys contain it."""
    folder = make_set(
        tmp_path / "rows", {"a": ("A", "train", {1: 32, 2: 16, 6: 3})}, modality="CT", region="abdomen",
        targets={"spleen": [1], "right kidney": [2], "kidneys": [2, 3], "liver": [6]},
    )  # fmt: skip
    (scene,) = read_scenes([read_labelled_set(folder)], ("train",), tmp_path)
    assert set(scene.places) == {"spleen", "right kidney"}
    spleen, kidney = scene.places["spleen"], scene.places["right kidney"]
    assert (spleen.row, spleen.column) == pytest.approx((0.0, 0.5), abs=1 / 32)
    assert (kidney.row, kidney.column) == pytest.approx((1 / 32, 0.25), abs=1 / 32)
    assert (spleen.share, kidney.share) == pytest.approx((1 / 32, 1 / 64))
    assert scene.apart("spleen", "kidneys") and not scene.apart("right kidney", "kidneys")
    assert scene.apart("spleen", "aorta"), "the set does not draw the aorta"


def test_everything_is_listed_in_the_order_of_the_set(built: list[Conversation]) -> None:
    answers = {(Path(c.image).stem, t.answer) for c in built for t in c.turns if t.kind == "all"}
    marked = [f"<p>{name}</p> [SEG]" for name in ("spleen", "right kidney", "left kidney", "liver")]
    assert ("full", f"Visible here: {', '.join(marked[:3])} and {marked[3]}.") in answers
    assert ("n1", "No known structure is visible in this breast ultrasound.") in answers
    assert not [stem for stem, _ in answers if stem == "bare"]


def test_a_pair_may_be_followed_by_one_of_its_sides(data_dir: Path, knowledge: KnowledgeBase) -> None:
    mix = Mix(explicit=1, implicit=0, multi=0, all=0, absent_same_set=0, absent_elsewhere=0, several_turns=1)
    found = list(build(data_dir, knowledge, seed=1, count=800, mix=mix))
    sides = [
        (Path(c.image).stem, "left" if "left" in two.question else "right", [t.label for t in two.targets], two.absent)
        for c in found
        for one, two in zip(c.turns, c.turns[1:], strict=False)
        if one.targets and one.targets[0].label == "kidneys" and re.search(r"\bone\b", two.question)
        and "that" not in two.question
    ]  # fmt: skip
    assert ("full", "left", ["left kidney"], ()) in sides
    assert ("one_kidney", "left", [], ("left kidney",)) in sides
    assert ("one_kidney", "right", ["right kidney"], ()) in sides


def test_several_names_do_not_overlap(built: list[Conversation]) -> None:
    for turn in (t for c in built for t in c.turns if t.kind == "multi"):
        values = Counter(v for target in turn.targets for v in target.value)
        assert max(values.values()) == 1


def test_split_and_licence_choose_the_images(data_dir: Path, knowledge: KnowledgeBase) -> None:
    free = list(build(data_dir, knowledge, 1, 200, splits=("train",), licence="permissive"))
    assert {c.split for c in free} == {"train"}
    assert {c.dataset for c in free} == {"abdomen_ct", "breast_normal"}
    assert not [t for c in free for t in c.turns if "hippocampus" in t.answer]
    with pytest.raises(MedSegRError, match="no image to ask about in the splits test"):
        build(data_dir, knowledge, 1, 5, splits=("test",))
    with pytest.raises(MedSegRError, match="Count is 0"):
        build(data_dir, knowledge, 1, 0)


def test_a_mix_that_an_image_cannot_serve_still_asks_something(
    data_dir: Path, knowledge: KnowledgeBase
) -> None:
    mix = Mix(explicit=1, implicit=0, multi=0, all=0, absent_same_set=0, absent_elsewhere=0, several_turns=0)
    bare = [c for c in build(data_dir, knowledge, 1, 60, mix=mix) if Path(c.image).stem == "bare"]
    assert {c.turns[0].kind for c in bare} == {"absent_elsewhere"}


def test_evaluation_asks_each_present_target_twice_and_one_absent_one(
    data_dir: Path, knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    questions = evaluation_questions(data_dir, knowledge, "val", seed=1)
    assert all(len(c.turns) == 1 and c.split == "val" for c in questions)
    asked = Counter(
        (Path(c.image).stem, t.kind, t.targets[0].label) for c in questions for t in c.turns if t.targets
    )
    present = {
        "seen": ("spleen", "right kidney", "left kidney", "kidneys"),
        "held": ("posterior hippocampus", "hippocampus"),
    }
    assert asked == {
        (stem, kind, name): 1
        for stem, names in present.items()
        for name in names
        for kind in ("explicit", "implicit")
    }
    for turn in (c.turns[0] for c in questions):
        assert turn.fact is None or turn.fact in knowledge.held_out_ids
    absent = {Path(c.image).stem: c.turns[0] for c in questions if not c.turns[0].targets}
    assert set(absent) == {"seen", "held", "n2"}
    assert "breast tumour" not in {
        n for t in absent.values() for n in t.absent
    }  # no set draws it for training
    write_qa(data_dir / "val.jsonl", questions)
    assert check_file(data_dir / "val.jsonl") == []


def test_the_held_out_facts_rotate_with_the_seed(data_dir: Path, knowledge: KnowledgeBase) -> None:
    def facts(seed: int) -> set[str]:
        found = evaluation_questions(data_dir, knowledge, "val", seed)
        return {t.fact for c in found for t in c.turns if t.kind == "implicit" and t.fact}

    expected = {f.id for n in ("spleen", "kidneys", "hippocampus") for f in knowledge[n].held_out_facts}
    assert facts(1) != facts(2)
    most = max(len(knowledge[n].held_out_facts) for n in ("spleen", "kidneys", "hippocampus"))
    assert expected <= set().union(*(facts(seed) for seed in range(1, most + 1)))
    assert evaluation_questions(data_dir, knowledge, "val", 1) == evaluation_questions(
        data_dir, knowledge, "val", 1
    )
