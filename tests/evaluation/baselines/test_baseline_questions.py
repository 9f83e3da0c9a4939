"""What the rows are asked: explicit questions, thinned by image; told the name or the question; scored against the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medsegr.errors import MedSegRError
from medsegr.evaluation.baselines.questions import (
    Answer,
    AnsweredOutlines,
    PromptedOutlines,
    ask,
    chosen,
    read_answers,
    write_answers,
)
from medsegr.evaluation.overlap import Mask
from medsegr.imaging import Picture
from medsegr.model.medsegr import MedSegR
from medsegr.qa.schema import Conversation, Target, Turn
from medsegr.reply import Finding, Reply

SIZE = (8, 10)


def _question(image: str, label: str = "liver", kind: str = "explicit", dataset: str = "set") -> Conversation:
    target = Target(label, label, f"{image}-mask.png", ({"liver": 1, "spleen": 2}[label],))
    turn = Turn(f"Where is the {label}?", f"The <p>{label}</p> [SEG].", (target,), kind)
    return Conversation(f"{image}-{label}-{kind}", f"{image}.png", "CT", dataset, image, "val", (turn,))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images a and b: the liver fills the upper half, the spleen the lower left quarter."""
    labels = np.zeros(SIZE, np.uint8)
    labels[:4], labels[4:, :5] = 1, 2
    for name in "ab":
        Image.fromarray(labels).save(tmp_path / f"{name}-mask.png")
        Image.fromarray(labels * 90).save(tmp_path / f"{name}.png")
    return tmp_path


class UpperHalf:
    """Outlines the upper half, whatever it is asked; keeps what it was given."""

    def __init__(self) -> None:
        self.images = 0
        self.given: list[tuple[str, str]] = []

    def set_image(self, picture: Picture, modality: str) -> None:
        assert picture.pixels.shape[:2] == SIZE and modality == "CT"
        self.images += 1

    def draw(self, question: str, target: str) -> Mask:
        self.given.append((question, target))
        mask = np.zeros(SIZE, dtype=bool)
        mask[:4] = True
        return mask


def test_each_image_is_set_once_and_each_question_scored(root: Path) -> None:
    outlines = UpperHalf()
    answers = ask(outlines, [_question("a"), _question("a", "spleen"), _question("b")], root)
    assert [a.dice for a in answers] == [1.0, 0.0, 1.0]
    assert [(a.image, a.target, a.patient) for a in answers] == [
        ("a.png", "liver", "a"),
        ("a.png", "spleen", "a"),
        ("b.png", "liver", "b"),
    ]
    assert outlines.images == 2
    assert outlines.given[1] == ("Where is the spleen?", "spleen")


def test_every_third_image_is_asked_about_and_small_sets_are_not_emptied() -> None:
    many = [_question(f"i{n:02d}", label) for n in range(20) for label in ("liver", "spleen")]
    few = [_question(f"f{n}", dataset="few") for n in range(6)]
    tiny = [_question(f"t{n}", dataset="tiny") for n in range(2)]
    other = [_question(f"i{n:02d}", kind="implicit") for n in range(20)]
    kept = chosen([*many, *few, *tiny, *other], every=3)
    images = {name: sorted({c.image for c in kept if c.dataset == name}) for name in ("set", "few", "tiny")}
    assert images["set"] == [f"i{n:02d}.png" for n in range(0, 20, 3)]
    assert len(images["few"]) == 6 and len(images["tiny"]) == 2
    assert {c.turns[0].kind for c in kept} == {"explicit"}
    assert sum(c.dataset == "set" for c in kept) == 14, "all questions about a kept image"
    assert [c.image for c in kept] == sorted(
        (c.image for c in kept), key=lambda i: ("fts".index(i[0]) if i[0] != "i" else 1, i)
    )


def test_nothing_to_ask_is_an_error() -> None:
    with pytest.raises(MedSegRError, match="no explicit question"):
        chosen([_question("a", kind="implicit")], 1)
    with pytest.raises(MedSegRError, match="every is 0"):
        chosen([_question("a")], 0)


def test_a_model_that_reads_is_never_told_the_name() -> None:
    """The answer's masks are united; no finding is an empty mask."""
    left, right = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    left[:, :2], right[:, 8:] = True, True

    class Fixed:
        scales: tuple[float, ...] = (1.0, 1.25)
        asked: list[str] = []

        def set_image(self, picture: Picture, modality: str) -> None:
            pass

        def ask(self, question: str) -> Reply:
            self.asked.append(question)
            found = (Finding("liver", "liver", left, 0.5), Finding("spleen", "spleen", right, 0.5))
            return Reply("", found if len(self.asked) == 1 else (), {})

    fixed = Fixed()
    outlines = AnsweredOutlines(fixed)  # type: ignore[arg-type]
    outlines.set_image(Picture(np.zeros(SIZE, np.uint8), "CT", None), "CT")
    assert np.array_equal(outlines.draw("Where is it?", "secret"), left | right)
    assert not outlines.draw("Where is it?", "secret").any()
    assert fixed.asked == ["Where is it?"] * 2 and fixed.scales == (1.0,)


def test_prompted_by_name_the_mask_is_the_decoder_s(tiny: MedSegR) -> None:
    torch.manual_seed(0)
    side = tiny.config.image_size
    pixels = np.random.default_rng(0).integers(0, 255, (side // 2, side // 2), np.uint8).astype(np.uint8)
    outlines = PromptedOutlines(tiny)
    picture = Picture(pixels, "XR", None)  # as large as the logits: no resizing on the way back
    outlines.set_image(picture, "XR")
    bias = tiny.grounding.decoder.skip_hypernetworks[-1].layers[-1].bias
    with torch.no_grad():

        def logits() -> torch.Tensor:
            assert outlines._features is not None
            prompt, click = tiny.grounding.names.weight[1:2], (torch.zeros(1, 1, 2), -torch.ones(1, 1))
            return tiny.grounding.decode(outlines._features, torch.tensor([0]), prompt, *click).logits[0]

        bias[-1] -= logits().median()
        expected = (logits() > 0).numpy()
    assert 0 < expected.mean() < 1, "a mask that could be wrong"
    assert np.array_equal(outlines.draw("", tiny.config.targets[1]), expected)
    assert not outlines.draw("", "unknown structure").any()


def test_answers_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    answers = [
        Answer("q", "set", "p", "i.png", "liver", 1 / 3),
        Answer("r", "set", "p", "i.png", "spleen", 0.0),
    ]
    write_answers(tmp_path / "a.jsonl", answers)
    assert read_answers(tmp_path / "a.jsonl") == answers
    (tmp_path / "a.jsonl").write_text('{"question": "q"}\n')
    with pytest.raises(MedSegRError, match="remove it to ask anew"):
        read_answers(tmp_path / "a.jsonl")
