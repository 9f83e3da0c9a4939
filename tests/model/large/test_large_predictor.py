"""A trained adapter behind the public API: set_image, ask, ask_volume; what was computed once is not computed again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegr.evaluation.metrics import dice
from medsegr.imaging import Volume
from medsegr.model.losses import LossWeights
from medsegr.predictor import Predictor
from medsegr.training.large import LargeOptions, run_large
from tests.large_models import tiny_large, toy_qa


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    run_large(LargeOptions(
        (toy_qa(folder),), folder / "adapter", tiny_large(folder), steps=200, accumulate=1, learning_rate=5e-3,
        warmup_steps=5, device="cpu", save_every=1000, checkpointing=False, loss=LossWeights(presence=1.0),
    ))  # fmt: skip
    return folder


def test_ask_answers_and_a_follow_up_encodes_nothing(folder: Path) -> None:
    predictor = Predictor.from_pretrained(folder / "adapter")
    assert predictor.targets == ("liver", "spleen") and "llava-med" in predictor.version
    calls: list[str] = []
    sam, core = predictor.model.grounding.sam, predictor.model.context.base.model  # type: ignore[union-attr]
    sam.image_encoder.register_forward_hook(lambda *_: calls.append("sam"))
    core.vision_tower.register_forward_hook(lambda *_: calls.append("clip"))
    predictor.set_image(folder / "i0.png", "PHOTO")
    pieces: list[str] = []
    reply = predictor.ask("What is here?", on_text=pieces.append)
    assert calls == ["sam", "clip"] and "".join(pieces) == reply.text
    assert [f.label for f in reply.findings] == ["liver"] and "[SEG]" not in reply.text
    truth = np.asarray(Image.open(folder / "m0.png")) > 0
    assert dice(reply.findings[0].mask, truth) > 0.75
    predictor.ask("And the spleen?", [("What is here?", reply.text)])
    predictor.set_image(folder / "i0.png", "PHOTO")
    predictor.ask("What is here?")
    assert calls == ["sam", "clip"], "the image is known"


def test_ask_volume_outlines_only_the_slices_that_show_it(folder: Path) -> None:
    predictor = Predictor.from_pretrained(folder / "adapter")
    plane = np.asarray(Image.open(folder / "i0.png"))
    other = np.asarray(Image.open(folder / "i1.png"))
    voxels = np.stack([plane.T, plane.T, other.T], axis=2)
    volume = Volume(voxels=voxels, affine=np.diag([-1.0, -1.0, 1.0, 1.0]), modality="PHOTO")
    reply = predictor.ask_volume(volume, "What is here?", slices=range(3))
    liver = next(f for f in reply.findings if f.label == "liver")
    assert liver.mask.shape == voxels.shape
    assert liver.mask[:, :, :2].any(axis=(0, 1)).all() and not liver.mask[:, :, 2].any()
