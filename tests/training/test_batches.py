"""Augmentation and batches: geometry by hand, clicks inside, truth from the right label map, constant shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medsegr.model.medsegr import MedSegR
from medsegr.model.presets import PRESETS
from medsegr.model.tokens import train_tokenizer
from medsegr.qa.schema import Conversation, Target, Turn
from medsegr.training.augment import NONE, Augmentation, augment
from medsegr.training.batches import Sampler, Sampling, make_batch
from medsegr.training.images import Case

SIDE = 64


def _case(
    name: str, value: int, labels: np.ndarray, absent: frozenset[str] = frozenset(), dataset: str = "toy"
) -> Case:
    target = Target("liver", "liver", "m.png", (value,))
    turn = Turn("Where is the liver?", "The <p>liver</p> [SEG] lies here.", (target,))
    conversation = Conversation(name, name, "CT", dataset, name, "train", (turn,))
    rgb = np.repeat((labels * 200)[..., None], 3, axis=2).astype(np.uint8)
    return Case(name, dataset, name, False, False, rgb, labels, (conversation,), frozenset({"liver"}), absent)


@pytest.fixture
def model() -> MedSegR:
    config = replace(PRESETS["tiny"], question_encoder="scratch", targets=("liver", "spleen"))
    return MedSegR(config, train_tokenizer(["The <p>liver</p> [SEG] lies here.", "Where is the liver?"]))


def _labels(value: int, rows: slice) -> np.ndarray:
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[rows, 10:30] = value
    return labels


def test_no_augmentation_changes_nothing() -> None:
    labels = torch.from_numpy(_labels(3, slice(5, 20))).unsqueeze(0)
    rgb = (labels * 60).unsqueeze(-1).expand(-1, -1, -1, 3)
    no = torch.zeros(1, dtype=torch.bool)
    out_rgb, out_labels = augment(rgb, labels, no, no, no, NONE, torch.Generator().manual_seed(0))
    assert torch.equal(out_labels, labels)
    assert (out_rgb.int() - rgb.int()).abs().max() <= 1


def test_image_and_labels_move_together() -> None:
    labels = torch.from_numpy(_labels(1, slice(20, 40))).unsqueeze(0).repeat(8, 1, 1)
    rgb = (labels * 200).unsqueeze(-1).expand(-1, -1, -1, 3)
    yes = torch.ones(8, dtype=torch.bool)
    only_moves = Augmentation(contrast=0, brightness=0, noise=0)
    out_rgb, out_labels = augment(rgb, labels, yes, yes, yes, only_moves, torch.Generator().manual_seed(0))
    bright = out_rgb[..., 0] > 100
    assert not torch.equal(out_labels, labels)
    agree = (bright & (out_labels == 1)).sum() / (bright | (out_labels == 1)).sum()
    assert agree > 0.9


def test_sides_are_never_mirrored() -> None:
    labels = torch.zeros(16, SIDE, SIDE, dtype=torch.uint8)
    labels[:, :, :20] = 1
    no = torch.zeros(16, dtype=torch.bool)
    _, out = augment(
        (labels * 200).unsqueeze(-1).expand(-1, -1, -1, 3),
        labels,
        no,
        no,
        no,
        Augmentation(),
        torch.Generator().manual_seed(3),
    )
    assert all(out[i, :, :32].sum() > out[i, :, 32:].sum() for i in range(16))


def test_an_image_of_any_plane_is_turned_by_quarters() -> None:
    labels = torch.zeros(64, SIDE, SIDE, dtype=torch.uint8)
    labels[:, 16:48, :16] = 1
    no, yes = torch.zeros(64, dtype=torch.bool), torch.ones(64, dtype=torch.bool)
    rgb = (labels * 200).unsqueeze(-1).expand(-1, -1, -1, 3)
    _, out = augment(rgb, labels, no, no, yes, Augmentation(), torch.Generator().manual_seed(3))
    lies = {
        side
        for one in out.numpy()
        for side, part in (
            ("left", one[:, :20]),
            ("right", one[:, -20:]),
            ("top", one[:20]),
            ("bottom", one[-20:]),
        )
        if part.sum() > 0.7 * one.sum()
    }
    assert lies == {"left", "right", "top", "bottom"}


def test_truth_comes_from_the_decoded_image(model: MedSegR) -> None:
    cases = [_case("a", 1, _labels(1, slice(0, 20))), _case("b", 1, _labels(1, slice(40, 60)))]
    sampling = Sampling(images=2, masks=12, other_image=1.0, click=1.0, shape_multiple=32)
    batch = make_batch(model, None, Sampler(cases, 0), sampling, NONE, torch.Generator().manual_seed(0))
    assert batch.truth.shape == (12, SIDE // 2, SIDE // 2) and batch.pixels.shape == (2, 3, SIDE, SIDE)
    assert batch.packed.token_ids.shape[1] % 32 == 0
    assert set(batch.decode_image.tolist()) == {0, 1}
    crossed = batch.decode_image != batch.seg_row[batch.decode_query]
    assert crossed.any()
    for i, mask in enumerate(batch.truth):
        bright = batch.pixels[batch.decode_image[i], 0, ::2, ::2] > 0
        assert torch.equal(mask, bright), (
            "the truth is the label of the image that is decoded, not of the one asked about"
        )
        x, y = batch.points[i, 0].tolist()
        assert batch.point_labels[i, 0] == 1 and mask[int(y) // 2, int(x) // 2]


def test_a_token_is_not_used_where_the_truth_is_unknown(model: MedSegR) -> None:
    """Unlabelled is not absent: an image without the label is decoded only where it is declared absent."""
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    for absent, expected in ((frozenset[str](), set[int]()), (frozenset({"liver"}), {True})):
        shown = _case("a", 1, _labels(1, slice(0, 20)))
        empty = replace(
            _case("b", 1, nothing, absent),
            conversations=(Conversation("b", "b", "CT", "toy", "b", "train", (Turn("?", "No.", ()),)),),
        )
        empty = replace(empty, present=frozenset())
        sampling = Sampling(images=8, masks=32, other_image=1.0, click=0.0, shape_multiple=32)
        batch = make_batch(
            model, None, Sampler([shown, empty], 0), sampling, NONE, torch.Generator().manual_seed(0)
        )
        assert {bool(not m.any()) for m in batch.truth} - {False} == expected


def test_the_model_learns_from_a_batch(model: MedSegR) -> None:
    from medsegr.model.losses import LossWeights

    cases = [_case("a", 1, _labels(1, slice(0, 20)))]
    batch = make_batch(
        model,
        None,
        Sampler(cases, 0),
        Sampling(images=2, masks=4, shape_multiple=32),
        NONE,
        torch.Generator().manual_seed(0),
    )
    losses = model(batch, LossWeights(text=2.0, bce=0.0, dice=0.0, quality=0.0, presence=0.0, overview=0.0))
    assert losses["loss"].item() == pytest.approx(2 * losses["text"].item(), rel=1e-6)
    model(batch, LossWeights())["loss"].backward()
    silent = [
        n
        for n, p in model.named_parameters()
        if p.grad is None
        and "prompt_encoder" not in n
        and "question" not in n
        and n not in ("encoder.overview.fine_weight", "grounding.names.weight")  # the vision stage's
    ]
    assert not silent, f"no gradient reaches {silent}"
