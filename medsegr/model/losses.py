"""Segmentation losses, computed in float32 per mask and averaged over masks (LISA, Lai et al. 2024, eq. 3-4)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the training loss; the defaults are LISA's, the last three are small auxiliary heads."""

    text: float = 1.0
    bce: float = 2.0
    dice: float = 0.5
    quality: float = 0.1
    presence: float = 0.2
    overview: float = 0.5


def mask_bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Pixel-mean binary cross-entropy of each mask, averaged; logits, truth [N, H, W]."""
    return F.binary_cross_entropy_with_logits(logits.float(), truth.float())


def soft_dice(logits: Tensor, truth: Tensor, smooth: float = 1.0) -> Tensor:
    """[N] soft Dice coefficients of sigmoid(logits) and truth, both [N, H, W]; 1 is perfect."""
    p, t = logits.float().sigmoid().flatten(1), truth.float().flatten(1)
    return (2 * (p * t).sum(1) + smooth) / (p.sum(1) + t.sum(1) + smooth)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - soft Dice, averaged over the masks that are not empty (an empty truth gives Dice no useful gradient)."""
    present = truth.flatten(1).any(1)
    if not bool(present.any()):
        return logits.sum() * 0.0
    return 1 - soft_dice(logits[present], truth[present]).mean()
