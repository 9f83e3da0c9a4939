"""The checks find each way in which a MedSeg-QA file can mislead a training or an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegr.qa.checks import check_file
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Conversation, Target, Turn

SPLEEN = Target("spleen", "spleen", "data/abdomen_ct/masks/full.png", (1,))
LIVER = Target("liver", "liver", "data/abdomen_ct/masks/full.png", (6,))
EXPLICIT = Turn("Show the spleen.", "The <p>spleen</p> [SEG] lies here.", (SPLEEN,))
IMPLICIT = Turn(
    "Which organ makes bile?", "The <p>liver</p> [SEG] makes bile.", (LIVER,), "implicit", "liver.x"
)


@pytest.fixture
def sound(data_dir: Path) -> Conversation:
    """A conversation without a problem about `full`, whose file lies beside the data folder."""
    assert data_dir.name == "data"
    return Conversation(
        "a", "data/abdomen_ct/images/full.png", "CT", "abdomen_ct", "A1", "train", (EXPLICIT, IMPLICIT)
    )


@pytest.fixture
def problems(tmp_path: Path) -> Callable[..., list[str]]:
    """Problems of a file of these conversations."""

    def of(*conversations: Conversation) -> list[str]:
        path = tmp_path / "qa.jsonl"
        write_qa(path, conversations)
        return check_file(path)

    return of


def test_a_sound_file_has_no_problem(sound: Conversation, problems: Callable[..., list[str]]) -> None:
    assert problems(sound) == []


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (replace(EXPLICIT, answer="The spleen lies here."), "0 [SEG] for 1 targets"),
        (replace(EXPLICIT, answer="The spleen [SEG] lies here."), "expected the targets' phrases ['spleen']"),
        (replace(EXPLICIT, answer="The <p>liver</p> [SEG] lies here."), "the answer marks ['liver']"),
        (replace(IMPLICIT, question="Which hepatic organ makes bile?"), "gives 'liver' away with 'hepatic'"),
        (
            replace(EXPLICIT, targets=(replace(SPLEEN, mask="masks/none.png"),)),
            "mask 'masks/none.png' does not exist",
        ),
        (replace(EXPLICIT, targets=(replace(SPLEEN, value=(9,)),)), "has none of the values [9] of 'spleen'"),
        (replace(EXPLICIT, kind="absent_same_set"), "kind is absent_same_set, but there are 1 targets"),
        (Turn("Pancreas?", "No pancreas.", (), "explicit"), "kind is explicit, but there is no target"),
        (replace(EXPLICIT, absent=("spleen",)), "'spleen' is a target and absent at once"),
        (
            Turn("Liver?", "No liver.", (), "absent_same_set", None, ("liver",)),
            "'liver' is called absent, but",
        ),
        (
            Turn("Liver?", "No liver.", (), "absent_elsewhere", None, ("liver",)),
            "'liver' is a target of abdomen_ct",
        ),
        (
            Turn("Lungs?", "No lungs are visible.", (), "absent_elsewhere", None, ("lungs",)),
            "'lungs' (chest) may be visible in an image of the abdomen; unlabelled is not absent",
        ),
        (
            Turn("What is soft and hepatic?", "No liver.", (), "absent_same_set", "liver.x", ("liver",)),
            "gives 'liver' away with 'hepatic'",
        ),
    ],
)
def test_a_wrong_turn_is_found_with_its_line(
    sound: Conversation, problems: Callable[..., list[str]], turn: Turn, expected: str
) -> None:
    found = problems(sound, replace(sound, id="b", turns=(EXPLICIT, turn)))
    assert [p for p in found if expected in p and p.startswith("qa.jsonl:2: turn 2: ")], found


def test_a_distant_structure_may_be_absent(sound: Conversation, problems: Callable[..., list[str]]) -> None:
    turn = Turn(
        "Optic?", "No retinal blood vessels.", (), "absent_elsewhere", None, ("retinal blood vessels",)
    )
    assert problems(sound, replace(sound, id="b", turns=(turn,))) == []


def test_a_patient_or_an_image_in_two_splits_is_found(
    sound: Conversation, problems: Callable[..., list[str]]
) -> None:
    assert "patient 'A1' of abdomen_ct is in the splits train and val" in problems(
        sound, replace(sound, id="b", split="val")
    )[0]  # fmt: skip
    other = replace(sound, id="b", split="val", patient_id="A9")
    assert "images/full.png' is in the splits train and val" in problems(sound, other)[0]


def test_held_out_facts_in_training_are_found(
    sound: Conversation, problems: Callable[..., list[str]]
) -> None:
    turn = replace(IMPLICIT, fact="spleen.function.2")
    assert "fact 'spleen.function.2' is held out" in problems(replace(sound, turns=(turn,)))[0]


def test_missing_images_and_masks_of_another_size_are_found(
    sound: Conversation, problems: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert "image 'gone.png' does not exist" in problems(replace(sound, image="gone.png"))[0]
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "small.png")
    assert "is (32, 32) pixels, but the image is (9, 8)" in problems(replace(sound, image="small.png"))[0]


def test_one_name_has_one_set_of_values(sound: Conversation, problems: Callable[..., list[str]]) -> None:
    turn = replace(EXPLICIT, targets=(replace(SPLEEN, value=(2,)),))
    assert (
        "'spleen' has the values [2], but [1] elsewhere"
        in problems(sound, replace(sound, id="b", turns=(turn,)))[0]
    )


def test_broken_lines_do_not_hide_the_others(sound: Conversation, tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    write_qa(path, [sound, sound])
    path.write_text("{broken\n" + path.read_text())
    found = check_file(path)
    assert found[0].startswith("qa.jsonl:1: not valid JSON")
    assert found[1] == "qa.jsonl:3: id 'a' was used in qa.jsonl:2"
    path.write_text("")
    assert check_file(path) == ["qa.jsonl holds no conversation; expected at least one."]
    assert "cannot be read" in check_file(tmp_path / "none.jsonl")[0]
