"""The questions that measure abilities: an image whose places and sizes are known by heart, and what is asked about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegr.errors import MedSegRError
from medsegr.measured import centre
from medsegr.qa.abilities import BESIDE
from medsegr.qa.ability_questions import ability_questions
from medsegr.qa.checks import check_file
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Conversation, Turn

TARGETS = {"liver": [1], "spleen": [2], "right kidney": [3], "left kidney": [4], "kidneys": [3, 4]}
Blocks = Mapping[int, tuple[slice, slice]]
BODY: Blocks = {
    1: (slice(2, 14), slice(2, 14)),  # 144 pixels, upper left
    2: (slice(2, 8), slice(22, 28)),  # 36, upper right
    3: (slice(22, 28), slice(4, 10)),  # 36, below the liver
    4: (slice(22, 30), slice(22, 28)),  # 48, below the spleen
}
MakeData = Callable[..., Path]


@pytest.fixture
def make_data(tmp_path: Path, make_set: Callable[..., Path]) -> MakeData:
    """Writes a set of abdominal CT slices, 32 by 32: stem to (split, blocks by value)."""

    def make(**images: tuple[str, Blocks]) -> Path:
        folder = make_set(
            tmp_path / "data" / "abdomen",
            {stem: (f"p-{stem}", split, {}) for stem, (split, _) in images.items()},
            modality="CT",
            region="abdomen",
            targets=TARGETS,
        )
        for stem, (_, blocks) in images.items():
            labels = np.zeros((32, 32), np.uint8)
            for value, place in blocks.items():
                labels[place] = value
            Image.fromarray(labels).save(folder / "masks" / f"{stem}.png")
        return tmp_path / "data"

    return make


def _shown(turn: Turn) -> list[str]:
    return [target.label for target in turn.targets]


def _mask(root: Path, turn: Turn) -> np.ndarray:
    (target,) = turn.targets
    with Image.open(root / target.mask) as labels:
        return np.isin(np.asarray(labels), target.value)


def _by_kinds(found: list[Conversation]) -> dict[tuple[str, ...], Conversation]:
    return {tuple(turn.kind for turn in c.turns): c for c in found}


def test_an_image_is_asked_everything_that_it_can_answer(
    make_data: MakeData, knowledge: KnowledgeBase
) -> None:
    data = make_data(body=("val", BODY), seen=("train", BODY), bare=("val", {}))
    found = ability_questions(data, knowledge)
    assert {(c.image, c.split) for c in found} == {("abdomen/images/body.png", "val")}
    assert [tuple(turn.kind for turn in c.turns) for c in found] == [
        ("all",), ("comparison",), ("count",), ("side",), ("explicit", "why"), ("explicit", "neighbour"),
        ("explicit", "explicit"), ("explicit", "explicit", "explicit"),
    ]  # fmt: skip
    assert len({c.id for c in found}) == len(found)
    kinds = _by_kinds(found)
    assert _shown(kinds["all",].turns[0]) == ["liver", "spleen", "right kidney", "left kidney"]
    assert _shown(kinds["count",].turns[0]) == ["kidneys"]
    first, reason = kinds["explicit", "why"].turns
    assert first.targets == reason.targets
    pair, half = kinds["explicit", "explicit"].turns
    assert _shown(pair) == ["kidneys"] and _shown(half) in (["left kidney"], ["right kidney"])
    assert _shown(half)[0].split()[0] in half.question
    three = [name for turn in kinds["explicit", "explicit", "explicit"].turns for name in _shown(turn)]
    assert len(set(three)) == 3


def test_what_is_asked_has_no_doubtful_answer(make_data: MakeData, knowledge: KnowledgeBase) -> None:
    data = make_data(body=("val", BODY))
    below = {"liver": "right kidney", "spleen": "left kidney"}
    right = {"liver": "spleen", "right kidney": "left kidney"}
    beside = {
        **{(one, "below"): other for one, other in below.items()},
        **{(other, "above"): one for one, other in below.items()},
        **{(one, "right"): other for one, other in right.items()},
        **{(other, "left"): one for one, other in right.items()},
    }
    compared, sides, neighbours = set(), set(), set()
    for seed in range(40):
        kinds = _by_kinds(ability_questions(data, knowledge, seed=seed))
        compared.add(frozenset(_shown(kinds["comparison",].turns[0])))
        (turn,) = kinds["side",].turns
        sides |= set(_shown(turn))
        assert abs(centre(_mask(data, turn))[1]) > 0.08
        one, other = kinds["explicit", "neighbour"].turns
        direction = next(d for d, questions in BESIDE.items() if other.question in questions)
        neighbours.add(((*_shown(one), direction), *_shown(other)))
    assert compared == {
        frozenset(pair)
        for pair in (
            ("liver", "spleen"), ("liver", "left kidney"), ("liver", "right kidney"), ("spleen", "left kidney"),
            ("left kidney", "right kidney"),
        )
    }, "the spleen and the right kidney are equally large"  # fmt: skip
    assert sides == {"liver", "spleen"}, "a kidney's name says its side"
    assert neighbours <= set(beside.items()) and len(neighbours) > 4


def test_questions_whose_answer_would_be_in_doubt_are_left_out(
    make_data: MakeData, knowledge: KnowledgeBase
) -> None:
    alike: Blocks = {
        1: (slice(2, 8), slice(13, 19)),  # two equal squares in the middle, one above the other
        2: (slice(20, 26), slice(13, 19)),
    }
    found = _by_kinds(ability_questions(make_data(alike=("val", alike)), knowledge))
    assert set(found) == {("all",), ("explicit", "why"), ("explicit", "neighbour")}


def test_the_same_seed_asks_the_same(make_data: MakeData, knowledge: KnowledgeBase) -> None:
    data = make_data(body=("val", BODY), other=("val", BODY), small=("test", {1: BODY[1]}))
    found = ability_questions(data, knowledge, seed=3)
    assert found == ability_questions(data, knowledge, seed=3) != ability_questions(data, knowledge, seed=4)
    assert {c.image for c in ability_questions(data, knowledge, split="test")} == {"abdomen/images/small.png"}
    write_qa(data / "abilities.jsonl", found)
    assert check_file(data / "abilities.jsonl") == []


def test_a_set_without_knowledge_is_refused(
    tmp_path: Path, make_set: Callable[..., Path], knowledge: KnowledgeBase
) -> None:
    make_set(
        tmp_path / "data" / "odd", {"a": ("p", "val", {1: 40})}, modality="CT", region="abdomen", targets={"gizmo": [1]}
    )  # fmt: skip
    with pytest.raises(MedSegRError, match="gizmo"):
        ability_questions(tmp_path / "data", knowledge)
