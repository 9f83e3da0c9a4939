"""Losses against hand-computed values."""

from __future__ import annotations

import math

import torch

from medsegr.model.losses import dice_loss, mask_bce, soft_dice


def test_bce_of_undecided_logits_is_ln2() -> None:
    assert math.isclose(float(mask_bce(torch.zeros(2, 3, 3), torch.ones(2, 3, 3))), math.log(2), rel_tol=1e-6)


def test_soft_dice_by_hand() -> None:
    truth = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    logits = torch.full((1, 2, 2), 100.0)  # all foreground: p = 4, t = 2, overlap 2
    assert math.isclose(float(soft_dice(logits, truth)[0]), (2 * 2 + 1) / (4 + 2 + 1), rel_tol=1e-5)


def test_dice_loss_ignores_empty_truth() -> None:
    truth = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)]).bool()
    logits = torch.stack([torch.full((2, 2), 100.0), torch.full((2, 2), 100.0)])
    assert math.isclose(float(dice_loss(logits, truth)), 0.0, abs_tol=1e-6)
    assert float(dice_loss(logits[:1], truth[:1])) == 0.0


def test_losses_are_float32_for_half_logits() -> None:
    logits = torch.zeros(1, 2, 2, dtype=torch.bfloat16)
    assert mask_bce(logits, torch.ones(1, 2, 2)).dtype == torch.float32
