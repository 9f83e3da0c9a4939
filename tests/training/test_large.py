"""LoRA training of tiny models of the large presets' classes: it learns, is saved, loads again, and answers as it was taught."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medsegr.errors import CheckpointError, MedSegRError, QAFileError
from medsegr.evaluation.metrics import dice
from medsegr.imaging import to_rgb
from medsegr.model.large.adapter import is_large, large_weights, load_large
from medsegr.model.losses import LossWeights
from medsegr.model.tokens import phrases
from medsegr.qa.reader import read_qa, write_qa
from medsegr.training.large import Feed, LargeOptions, by_set, run_large, start
from tests.large_models import PRESETS, tiny_large, toy_qa


@pytest.fixture(scope="module", params=PRESETS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LargeOptions:
    folder = tmp_path_factory.mktemp("large")
    options = LargeOptions(
        (toy_qa(folder),), folder / "adapter", tiny_large(folder, request.param), steps=200, accumulate=1,
        learning_rate=5e-3, warmup_steps=5, device="cpu", save_every=1000, loss=LossWeights(presence=1.0),
    )  # fmt: skip
    run_large(options)
    return options


def test_it_learns_to_answer_and_outline_by_free_generation(trained: LargeOptions) -> None:
    lines = (trained.out.parent / "adapter.log.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    assert len(log) == 200 and log[-1]["loss"] < 0.1 * log[0]["loss"]
    assert is_large(trained.out)
    loaded = load_large(trained.out)
    assert loaded.model.config.targets == ("liver", "spleen") and loaded.version.endswith("-200")
    for n, label in enumerate(("liver", "spleen")):
        rgb = to_rgb(np.asarray(Image.open(trained.out.parent / f"i{n}.png")), "PHOTO")
        truth = np.asarray(Image.open(trained.out.parent / f"m{n}.png")) > 0
        features = loaded.model.encode_picture(torch.from_numpy(rgb))
        prefix = loaded.model.context.prefix(features.context)
        found = loaded.model.context.generate(prefix, [], "What is here?")
        assert found is not None and phrases(found.text) == [label] and len(found.states) == 1
        masks = loaded.model.decode_masks(features, found.states)
        logits = torch.nn.functional.interpolate(masks.logits[None], truth.shape)[0, 0]
        assert dice((logits > 0).numpy(), truth) > 0.9
        assert float(masks.presence) > 0
        other = np.asarray(Image.open(trained.out.parent / f"i{1 - n}.png"))
        elsewhere = loaded.model.encode_picture(torch.from_numpy(to_rgb(other, "PHOTO")))
        assert float(loaded.model.decode_masks(elsewhere, found.states).presence) < 0, (
            "not on the other image"
        )


def test_a_merged_adapter_answers_as_one_that_can_be_trained_on(trained: LargeOptions) -> None:
    merged, apart = load_large(trained.out).model, load_large(trained.out, merge=False).model
    assert not any("lora" in n for n, _ in merged.named_parameters())
    picture = torch.from_numpy(to_rgb(np.asarray(Image.open(trained.out.parent / "i0.png")), "PHOTO"))
    answers = [m.context.generate(m.context.prefix(picture), [], "What is here?") for m in (merged, apart)]
    assert answers[0] is not None and answers[1] is not None
    assert answers[0].text == answers[1].text
    torch.testing.assert_close(answers[0].states, answers[1].states, atol=1e-4, rtol=1e-3)


def test_training_goes_on_from_an_adapter(trained: LargeOptions, tmp_path: Path) -> None:
    options = replace(trained, init=trained.out, out=tmp_path / "more", steps=1, learning_rate=1e-5)
    run_large(options)
    before = (trained.out.parent / "adapter.log.jsonl").read_text(encoding="utf-8").splitlines()
    after = json.loads((tmp_path / "more.log.jsonl").read_text(encoding="utf-8"))
    assert after["loss"] < 2 * json.loads(before[-1])["loss"]


def test_damage_is_told_in_a_sentence(trained: LargeOptions, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained.out, copy)
    assert [ok for _, ok, _ in large_weights(copy)] == [True, True, True]
    meta = json.loads((copy / "meta.json").read_text())
    for key, value, sentence in (
        ("base", {"model.safetensors": 1}, "another than the adapter was trained on"),
        ("sam", "0" * 64, "another SAM than the adapter"),
        ("sha256", {"grounding.safetensors": "0" * 64}, "does not have the SHA-256"),
    ):
        (copy / "meta.json").write_text(json.dumps({**meta, key: value}))
        with pytest.raises(CheckpointError, match=sentence):
            load_large(copy)
    (copy / "lora" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"medsegr pretrain QA.jsonl --preset {trained.config.preset} "):
        load_large(copy)


def test_the_frozen_image_encoder_runs_once_per_image(tmp_path: Path) -> None:
    options = LargeOptions((toy_qa(tmp_path),), tmp_path / "a", tiny_large(tmp_path), device="cpu")
    conversations = list(read_qa(options.qa[0]))
    model = start(options, conversations)
    calls: list[int] = []
    model.grounding.sam.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    feed = Feed(model, by_set(conversations), tmp_path, options)
    batches = [feed.draw() for _ in range(3)]
    assert len(calls) == 2
    truth = batches[0].truth
    assert truth.shape[1:] == (32, 32) and truth.shape[0] == 4, "each token on its own image and on the other"
    assert sorted(truth.flatten(1).any(1).tolist()) == [False, False, True, True]
    assert not bool(truth[:, 24:].any()), "a 48 x 64 image fills three quarters of the square"
    losses = model(batches[0], options.loss)
    losses["loss"].backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    unused = (
        "iou_prediction_head",
        "output_hypernetworks_mlps.1",
        "output_hypernetworks_mlps.2",
        "output_hypernetworks_mlps.3",
    )
    assert all(any(u in n for u in unused) for n in without), without


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    options = LargeOptions((toy_qa(tmp_path),), tmp_path / "a", tiny_large(tmp_path), device="cpu")
    with pytest.raises(MedSegRError, match="1 or more"):
        run_large(replace(options, batch=0))
    conversations = list(read_qa(options.qa[0]))
    turn = replace(conversations[0].turns[0], answer="The liver.")
    write_qa(options.qa[0], [replace(conversations[0], turns=(turn,))])
    with pytest.raises(QAFileError, match="0 \\[SEG\\] tokens for 1 targets"):
        run_large(replace(options, steps=1))
