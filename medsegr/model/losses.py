"""Segmentation losses, computed in float32 per mask and averaged over masks (LISA, Lai et al. 2024, eq. 3-4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the training loss. The first three are LISA's; `dense` is that of the same mask losses on outlines
    of every known structure at once; `names` pulls a `[SEG]` prompt to its structure's; the rest are small auxiliary heads."""

    text: float = 1.0
    bce: float = 2.0
    dice: float = 0.5
    quality: float = 0.1
    presence: float = 0.2
    overview: float = 0.5
    dense: float = 1.0
    names: float = 1.0

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of those terms that are there."""
        factors = {
            **{
                n: getattr(self, n)
                for n in ("text", "bce", "dice", "quality", "presence", "overview", "names")
            },
            "dense_bce": self.dense * self.bce,
            "dense_dice": self.dense * self.dice,
        }
        return torch.stack(
            [factor * losses[name] for name, factor in factors.items() if name in losses]
        ).sum()


def mask_bce(logits: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Pixel-mean binary cross-entropy of each mask, averaged by `weight` [N]; logits, truth [N, H, W]."""
    each = (
        F.binary_cross_entropy_with_logits(logits.float(), truth.float(), reduction="none").flatten(1).mean(1)
    )
    return each.mean() if weight is None else (each * weight).sum() / weight.sum()


def soft_dice(logits: Tensor, truth: Tensor, smooth: float = 1.0) -> Tensor:
    """[N] soft Dice coefficients of sigmoid(logits) and truth, both [N, H, W]; 1 is perfect."""
    p, t = logits.float().sigmoid().flatten(1), truth.float().flatten(1)
    return (2 * (p * t).sum(1) + smooth) / (p.sum(1) + t.sum(1) + smooth)


def dice_loss(logits: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - soft Dice, averaged by `weight` [N] over the masks that are not empty (an empty truth gives no useful gradient)."""
    present = truth.flatten(1).any(1)
    if not bool(present.any()):
        return logits.sum() * 0.0
    each = 1 - soft_dice(logits[present], truth[present])
    if weight is None:
        return each.mean()
    return (each * weight[present]).sum() / weight[present].sum()


@torch.no_grad()
def hard_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """[N] Dice of the masks as they would be drawn (logits > 0); two empty masks count 0."""
    hard, real = (logits > 0).float().flatten(1), truth.float().flatten(1)  # summing bool is slow on a CPU
    return 2 * (hard * real).sum(1) / (hard.sum(1) + real.sum(1)).clamp(min=1)
