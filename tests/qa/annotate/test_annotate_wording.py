"""The checks of written sentences, each on a sentence that breaks it and on one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medsegr.qa.annotate.cases import Case, Draw, draw_all, name_contradicts_mask, read_case, set_frame
from medsegr.qa.annotate.mask_facts import Frame
from medsegr.qa.annotate.wording import Wording, content_words, follow_up_problems, says
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.folders import read_labelled_sets
from medsegr.qa.scenes import read_scenes
from medsegr.qa.schema import Turn
from tests.annotation_endpoint import DESCRIPTIONS, answer_about, torso, write_hospital


@pytest.fixture
def draws(hospital: Path) -> list[Draw]:
    return draw_all(read_scenes(read_labelled_sets(hospital), ("train", "val"), hospital), 1)


@pytest.fixture
def case(draws: list[Draw], knowledge: KnowledgeBase) -> Callable[..., Case]:
    """The case of a target in a picture of a split."""

    def of(name: str, split: str = "train") -> Case:
        draw = next(d for d in draws if d.name == name and d.scene.image.split == split)
        return read_case(draw, knowledge)

    return of


@pytest.fixture
def wording(knowledge: KnowledgeBase, hospital: Path) -> Wording:
    return Wording(knowledge, hospital)


@pytest.mark.parametrize("name", list(DESCRIPTIONS))
def test_sound_descriptions_pass(wording: Wording, case: Callable[..., Case], name: str) -> None:
    for text in DESCRIPTIONS[name]:
        assert wording.description_problems(text, case(name)) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("liver", "is the hepatic gland that makes bile", "gives 'liver' away with 'hepatic'"),
        ("liver", "makes bile and lies across from the spleen", "names 'spleen', which is in the image too"),
        (
            "liver",
            "fills the upper left of the belly",
            "it says left, but the mask is on the patient's right",
        ),
        ("liver", "makes bile", "has 2 words; expected 4 to 30"),
        ("liver", "makes <p>bile</p> for the small bowel", "holds markup"),
        (
            "left kidney",
            "makes urine out of blood all day",
            "fits 'right kidney' as well, which is in the im",
        ),
        ("left kidney", "makes urine on the patient's right side", "fits 'right kidney' as well: it says wh"),
        ("liver", "filters worn-out red blood cells from the circulation", "fits 'spleen' as well"),
        ("spleen", "is the largest lymphoid organ of the body", "says the held-out fact 'spleen.function.2'"),
    ],
)
def test_bad_descriptions_are_found(
    wording: Wording, case: Callable[..., Case], name: str, text: str, expected: str
) -> None:
    assert [p for p in wording.description_problems(text, case(name)) if expected in p]


def test_held_out_facts_may_be_used_outside_training(wording: Wording, case: Callable[..., Case]) -> None:
    text = "is the largest lymphoid organ of the body"
    assert wording.description_problems(text, case("spleen", "val")) == []


def test_a_conversation_passes_or_fails_the_checks_of_files(
    wording: Wording, case: Callable[..., Case]
) -> None:
    one = case("spleen")
    target = one.scene.target("spleen")
    turn = Turn("Which structure filters old red cells here?", answer_about("spleen"), (target,), "implicit")

    def problems(changed: Turn) -> list[str]:
        return wording.candidate_problems(one.scene.conversation("x", [changed]), one)

    assert problems(turn) == []
    for changed, expected in (
        (replace(turn, answer=turn.answer.replace("spleen", "liver")), "turn 1: the answer marks ['liver']"),
        (replace(turn, answer=f"{turn.answer} And the <p>liver</p> [SEG]."), "has 2 [SEG] for 1 targets"),
        (replace(turn, answer=f"{turn.answer} It is on the right."), "turn 1: it says right"),
        (replace(turn, answer="The <p>spleen</p> [SEG]."), "the answer has 2 words; expected 8"),
        (replace(turn, question="Outline the spleen, please."), "gives 'spleen' away"),
        (replace(turn, question="Outline spleen and liver.", kind="explicit"), "names 'liver'"),
        (replace(turn, targets=(replace(target, value=(9,)),)), "has none of the values [9]"),
    ):
        assert any(expected in p for p in problems(changed)), (changed, problems(changed))


def test_a_follow_up_speaks_of_the_mask() -> None:
    assert follow_up_problems("How large is it?") == []
    assert follow_up_problems("Which side does this mask lie on?") == []
    assert follow_up_problems("Where is bile stored?") == ["the follow-up does not refer to the earlier mask"]


def test_what_a_text_says_is_measured_by_content_words(knowledge: KnowledgeBase) -> None:
    assert content_words("The gland that makes bile, with cells.") == {"gland", "make", "bile", "cell"}
    assert says("it often enlarges in glandular fever and bursts more easily", knowledge["spleen"]) == 1.0
    assert says("it barks", knowledge["spleen"]) == 0.0


def test_a_mirrored_label_map_is_not_trusted(tmp_path: Path, knowledge: KnowledgeBase) -> None:
    folder = write_hospital(tmp_path / "mirrored", np.ascontiguousarray(torso()[:, ::-1]))
    found = draw_all(read_scenes(read_labelled_sets(folder), ("train",), folder), 1)
    cases = {draw.name: read_case(draw, knowledge) for draw in found}
    assert name_contradicts_mask(cases["left kidney"]) == (
        "'left kidney' lies on the patient's right in radiological convention"
    )
    assert name_contradicts_mask(cases["liver"]) is None


def test_every_target_is_drawn_once_in_an_order_of_its_own(hospital: Path) -> None:
    scenes = read_scenes(read_labelled_sets(hospital), ("train", "val"), hospital)

    def order(seed: int) -> list[tuple[str, str]]:
        return [(d.name, d.scene.image.stem) for d in draw_all(scenes, seed)]

    assert order(1) == order(1) != order(2)
    assert len(set(order(1))) == 15
    assert len({name for name, _ in order(1)[:5]}) == 5  # each target before any comes again


def test_a_description_of_the_set_decides_on_its_sides(hospital: Path) -> None:
    (source,) = read_labelled_sets(hospital)
    path = source.folder / "dataset.json"
    text = path.read_text()
    assert set_frame(source) is Frame.PATIENT
    path.write_text(text.replace('"modality"', '"notes": "2D = sagittal slice", "modality"'))
    assert set_frame(source) is Frame.IMAGE
    path.write_text(text.replace('"modality"', '"sides": "image", "modality"'))
    assert set_frame(source) is Frame.IMAGE


def test_the_whole_that_a_target_is_part_of_may_be_named(wording: Wording, case: Callable[..., Case]) -> None:
    one = case("left kidney")
    assert wording._others_named("is the left one of the nephric pair", one) == []
    assert wording._others_named("beneath the spleen", one) != []
