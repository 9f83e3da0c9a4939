"""The whole chain learns: 8 images, 12 questions, answers exact and masks right, by free generation from the saved checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegr.evaluation.harness import evaluate
from medsegr.model.tokens import plain
from medsegr.predictor import Predictor
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Conversation, Target, Turn
from medsegr.training.pretrain import PretrainOptions, run

SIZE = 64
LIVER, SPLEEN = 1, 2


def _image(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc ("liver") at a place that depends on n; in even images also a gray square ("spleen")."""
    rng = np.random.default_rng(n)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[(rows - 20 - 3 * n) ** 2 + (columns - 18) ** 2 < 11**2] = LIVER
    if n % 2 == 0:
        labels[12 + 2 * n : 32 + 2 * n, 38:58] = SPLEEN
    pixels = np.choose(labels, [40, 220, 130]) + rng.normal(0, 6, labels.shape)
    return pixels.clip(0, 255).astype(np.uint8), labels


def _turns(n: int, mask: str) -> list[Turn]:
    liver, spleen = Target("liver", "liver", mask, (LIVER,)), Target("spleen", "spleen", mask, (SPLEEN,))
    turns = [Turn("Which organ makes bile?", "The <p>liver</p> [SEG] makes bile.", (liver,), "implicit")]
    if n % 4 == 0:
        both = "The <p>liver</p> [SEG] and the <p>spleen</p> [SEG] are outlined."
        turns.append(Turn("Outline the liver and the spleen.", both, (liver, spleen), "multi"))
    if n % 4 == 1:
        turns.append(
            Turn(
                "Show the spleen.",
                "No spleen is visible in this abdominal CT.",
                (),
                "absent_same_set",
                None,
                ("spleen",),
            )
        )
    return turns


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Conversation], Path]:
    root = tmp_path_factory.mktemp("overfit")
    conversations = []
    for n in range(8):
        pixels, labels = _image(n)
        Image.fromarray(pixels).save(root / f"i{n}.png")
        Image.fromarray(labels).save(root / f"m{n}.png")
        for k, turn in enumerate(_turns(n, f"m{n}.png")):
            conversations.append(
                Conversation(
                    f"c{n}_{k}", f"i{n}.png", "CT", "toy", f"p{n}", "train", (turn,), "CC0", "permissive"
                )
            )
    write_qa(root / "qa.jsonl", conversations)
    options = PretrainOptions(
        qa=(root / "qa.jsonl",),
        out=root / "ck",
        preset="tiny",
        steps=320,
        learning_rate=4e-3,
        warmup_steps=20,
        bf16=False,
        question_encoder="scratch",
        augment=False,
        calibration_share=0.0,
        threads=2,
    )
    return run(options), conversations, root


def test_twelve_questions_are_learnt_by_heart(trained: tuple[Path, list[Conversation], Path]) -> None:
    checkpoint, conversations, root = trained
    assert len(conversations) == 12
    predictor = Predictor.from_pretrained(checkpoint)
    predictor.scales = (1.0,)
    cases = evaluate(predictor, conversations, root, lambda case: None)
    for case, conversation in zip(cases, conversations, strict=True):
        said, place = plain(conversation.turns[0].answer), " Here it lies in the "
        assert (
            case.answer == said
            if len(conversation.turns[0].targets) != 1
            else case.answer.startswith(said + place)
        )
    assert np.mean([c.dice for c in cases if c.expected]) > 0.95
    assert all(c.empty for c in cases if not c.expected)


def test_a_finished_run_is_not_trained_again(trained: tuple[Path, list[Conversation], Path]) -> None:
    checkpoint, _, root = trained
    before = (checkpoint / "grounding.safetensors").read_bytes()
    options = PretrainOptions(
        qa=(root / "qa.jsonl",),
        out=checkpoint,
        preset="tiny",
        steps=320,
        question_encoder="scratch",
        calibration_share=0.0,
        bf16=False,
    )
    run(options)
    assert (checkpoint / "grounding.safetensors").read_bytes() == before
