"""Replay holds a challenger to what the champion draws, not to labels that it drew otherwise."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medsegr.model.losses import LossWeights
from medsegr.model.medsegr import MedSegR, mask_losses
from medsegr.qa.facts import load_knowledge
from medsegr.rounds.examples import Drawn, training_case
from medsegr.rounds.features import FeatureCase, encode, stack
from medsegr.rounds.finetune import FinetuneOptions, Pool, finetune
from medsegr.rounds.held import outlines_to_hold, truth_or_held
from medsegr.training.batches import Sampling, batch_of

SIDE = 64
NAMES = ("liver", "left kidney")


@pytest.fixture
def picture(tiny: MedSegR) -> FeatureCase:
    """One picture that shows two structures."""
    rng = np.random.default_rng(0)
    masks = {name: np.zeros((SIDE, SIDE), np.bool_) for name in NAMES}
    masks["liver"][4:30, 4:30] = True
    masks["left kidney"][40:60, 36:60] = True
    rgb = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    case = training_case(Drawn("d", "p", "CT", rgb, masks), load_knowledge().concepts, SIDE, 1)
    return encode(tiny, [case], 1, 1)[0]


def test_only_what_the_champion_knows_and_the_picture_shows_is_held(
    tiny: MedSegR, picture: FeatureCase
) -> None:
    rows = {tiny.config.targets.index(name) for name in NAMES}
    assert set(outlines_to_hold(tiny, [picture], len(tiny.config.targets))[picture]) == rows
    assert set(outlines_to_hold(tiny, [picture], max(rows))[picture]) == {min(rows)}


def test_held_outlines_take_the_place_of_labels(tiny: MedSegR, picture: FeatureCase) -> None:
    liver, kidney = (tiny.config.targets.index(name) for name in NAMES)
    held = {picture: {liver: torch.zeros(SIDE // 2, SIDE // 2, dtype=torch.bool)}}
    pool = Pool([picture], 1)
    _, labels = stack([picture])
    batch = batch_of(tiny, None, pool, Sampling(conversations=8), [picture.case], torch.empty(0), labels)
    like = truth_or_held(batch, [picture], held)
    target = batch.seg_target[batch.decode_query]
    assert {liver, kidney} <= set(target.tolist())
    assert not like[target == liver].any() and batch.truth[target == liver].any()
    assert torch.equal(like[target == kidney], batch.truth[target == kidney])
    assert torch.equal(truth_or_held(batch, [picture], {}), batch.truth)


def test_shape_is_learnt_from_what_is_held_and_quality_from_the_truth(tiny: MedSegR) -> None:
    masks = tiny.decode_masks(
        tiny.encode_image(torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8)), torch.zeros(1, 48)
    )
    truth = torch.zeros(masks.logits.shape, dtype=torch.bool)
    truth[:, :9] = True
    alone, held = mask_losses(masks, truth), mask_losses(masks, truth, ~truth)
    assert float(held["bce"]) != float(alone["bce"]) and float(held["dice"]) != float(alone["dice"])
    assert all(float(held[name]) == float(alone[name]) for name in ("quality", "presence", "train_dice"))


def test_replay_with_other_labels_does_not_move_what_the_champion_draws(
    tiny: MedSegR, picture: FeatureCase
) -> None:
    torch.manual_seed(0)
    random.seed(0)
    known = len(tiny.config.targets)
    before = outlines_to_hold(tiny, [picture], known)[picture]
    options = FinetuneOptions(
        steps=40, minutes=0, learning_rate=5e-3, images=2, masks=4, bf16=False, full=True, blend=1.0,
        loss=LossWeights(dice=1.0, names=3.0),
    )  # fmt: skip
    empty = replace(picture, labels=torch.zeros_like(picture.labels))
    finetune(tiny, None, [empty], [picture], options, known)
    after = outlines_to_hold(tiny, [picture], known)[picture]
    labels = F.interpolate(picture.labels[None, None].float(), scale_factor=0.5)[0, 0]
    for name in NAMES:
        row = tiny.config.targets.index(name)
        truth = torch.from_numpy(np.isin(labels.numpy(), picture.case.values[name]))
        agree = float((after[row] == before[row]).float().mean())
        assert agree > float((after[row] == truth).float().mean()), name


def test_the_decoder_learns_nothing_from_prompts_that_stand_for_a_neighbour(
    tiny: MedSegR, picture: FeatureCase
) -> None:
    tiny.config = replace(tiny.config, prompts_at_names=True)
    trunk, labels = stack([picture])
    pool, sampling = Pool([picture], 1), Sampling(conversations=8, click=0.0)
    batch = batch_of(tiny, None, pool, sampling, [picture.case], torch.empty(0), labels)
    with torch.no_grad():
        features = tiny.encoder.read(trunk)
        free = tiny.losses(features, batch, LossWeights())
        found = tiny.losses(features, batch, LossWeights(), as_answered=True)
        by_name = tiny.grounding.decode(
            features, batch.decode_image, tiny.grounding.names(batch.seg_target[batch.decode_query]),
            batch.points, batch.point_labels,
        )  # fmt: skip
        wanted = mask_losses(by_name, batch.truth)
    assert float(found["bce"]) == pytest.approx(float(wanted["bce"]), abs=1e-5)
    assert float(found["bce"]) != pytest.approx(float(free["bce"]), abs=1e-5)
    assert float(found["text"]) == pytest.approx(float(free["text"]), abs=1e-6)
