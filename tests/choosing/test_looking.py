"""A look by a real (tiny, random) predictor at pictures and volumes, and by one that has no overview."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medsegr.choosing.look import Look, bits
from medsegr.choosing.looking import glance, look
from medsegr.errors import Cancelled
from medsegr.imaging import Picture, Volume
from medsegr.model.checkpoint import Checkpoint
from medsegr.model.medsegr import MedSegR
from medsegr.model.presets import PRESETS
from medsegr.model.tokens import train_tokenizer
from medsegr.predictor import Predictor
from medsegr.reply import Finding, Reply

TARGETS = ("liver", "left kidney")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Made once: reading the knowledge base takes longer than all looks."""
    torch.manual_seed(0)
    config = replace(PRESETS["tiny"], question_encoder="scratch", targets=TARGETS, max_new_tokens=24)
    answers = [
        "The <p>liver</p> [SEG] makes bile.",
        "The <p>left kidney</p> [SEG] is here.",
        "No liver is visible.",
    ]
    tiny = MedSegR(config, train_tokenizer([*answers, "Outline the liver."])).eval()
    meta = {"licence": "CC0", "training": {}, "version": "tiny-1"}
    return Predictor(Checkpoint(tiny, meta, tmp_path_factory.mktemp("checkpoint")), None)


def picture(seed: int) -> Picture:
    return Picture(np.random.default_rng(seed).integers(0, 255, (40, 50), np.uint8), "CT", None)


def test_a_look_is_what_the_overview_says(predictor: Predictor) -> None:
    found = look(predictor, picture(0), "image")
    seen = glance(predictor, picture(0))
    assert seen is not None and seen.chances.shape == (2,)
    assert (found.image, found.version, found.trouble) == ("image", "tiny-1", "")
    assert dict(found.seen).keys() == {n for n, p in zip(TARGETS, seen.chances, strict=True) if p >= 0.3}
    least = sum(map(bits, seen.chances))
    assert least - 1e-3 <= found.entropy <= least + 3
    assert np.linalg.norm(found.embedding) == pytest.approx(1.0, abs=1e-2)
    assert 0.0 <= found.mismatch <= 1.0 and 0.0 <= found.paraphrase <= 1.0
    assert Look.from_json(found.to_json()) == found


def test_alike_pictures_are_nearer_than_others(predictor: Predictor) -> None:
    noise, flat = picture(0), Picture(np.full((40, 50), 90, np.uint8), "CT", None)
    brighter = Picture(noise.pixels // 2 + 100, "CT", None)
    glances = [glance(predictor, one) for one in (noise, brighter, flat)]
    here, near, far = (found.embedding / np.linalg.norm(found.embedding) for found in glances if found)
    assert np.linalg.norm(here - near) < np.linalg.norm(here - far)


def test_a_volume_is_looked_at_where_most_is_seen(predictor: Predictor) -> None:
    voxels = np.random.default_rng(1).normal(size=(20, 24, 9)).astype(np.float32)
    found = look(predictor, Volume(voxels, np.diag([1.0, 1.0, 3.0, 1.0]), "MR"), "v")
    assert found.embedding and found.doubted is not None and found.doubted[0] in TARGETS


def test_a_look_stops_when_it_is_told_to(predictor: Predictor) -> None:
    calls: list[int] = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 1  # the glance is granted, the first question is not

    with pytest.raises(Cancelled):
        look(predictor, picture(0), "image", stop)


class Scripted:
    """A predictor without an overview (as the large presets are), whose replies are written out."""

    targets, version = TARGETS, "large-1"

    def __init__(self, replies: dict[str, tuple[str, float | None]]) -> None:
        self.replies, self.asked = replies, list[str]()

    def set_image(self, image: Any, modality: str | None = None) -> None:
        self.shape = image.pixels.shape[:2]

    def ask(self, question: str, **options: Any) -> Reply:
        self.asked.append(question)
        text, confidence = self.replies.get(question, ("Not present.", None))
        if confidence is None:
            return Reply(text, (), {})
        return Reply(text, (Finding("liver", "liver", np.ones(self.shape, bool), confidence),), {})


def test_without_an_overview_findings_speak() -> None:
    predictor = Scripted({"": ("The liver makes bile.", 0.5), "Outline the liver.": ("The liver.", 0.9)})
    found = look(predictor, picture(0), "image")
    assert predictor.asked == ["", "Outline the liver.", "Where is the liver?"]
    assert found.seen == (("liver", 0.5),) and found.entropy == 1.0 and found.embedding == ()
    assert (found.paraphrase, found.mismatch) == (1.0, 0.0)
    assert found.paraphrase_why == "liver was outlined for one way of asking and not for another"


def test_the_second_way_of_asking_is_a_fact_that_training_may_use() -> None:
    fact = SimpleNamespace(text="makes bile", only_asked=False)
    concept = SimpleNamespace(name="liver", plural=False, training_facts=(fact,))
    predictor = Scripted({"": ("The liver makes bile.", 0.9)})
    predictor.knowledge = (concept,)  # type: ignore[attr-defined]
    look(predictor, picture(0), "image")
    assert predictor.asked[-1] == "Which structure here makes bile?"
