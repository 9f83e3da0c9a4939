"""Augmentation of a batch on the tensor side: one affine warp and one change of grey levels per image.

Mirroring is allowed only where no target of the set has a side; left and right carry meaning everywhere else. Quarter turns are
for sets that are also met lying otherwise: a cardiac MR volume is shown in whichever plane and sense its file was written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """Ranges: degrees, relative scale, shift as a fraction of the side, contrast and brightness."""

    degrees: float = 12.0
    scale: float = 0.2
    shift: float = 0.08
    contrast: float = 0.25
    brightness: float = 0.15
    noise: float = 0.02


NONE = Augmentation(0, 0, 0, 0, 0, 0)


def warp_matrices(
    ranges: Augmentation, mirror_x: Tensor, mirror_y: Tensor, turn: Tensor, generator: torch.Generator
) -> Tensor:
    """[B, 2, 3] affine matrices for `affine_grid`; mirror_x, mirror_y, turn [B] bool say which images may be
    mirrored, or turned by quarters (half of these are)."""
    n = len(mirror_x)

    def uniform(width: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * width

    angle = uniform(ranges.degrees * math.pi / 180)
    zoom_x, zoom_y = torch.exp(uniform(ranges.scale)), torch.exp(uniform(ranges.scale / 2))
    quarters = torch.randint(0, 4, (n,), generator=generator)
    turned = (torch.rand(n, generator=generator) < (0.5 if ranges.degrees else 0.0)) & turn
    angle = angle + torch.where(turned, quarters, 0) * (math.pi / 2)
    coin = torch.rand(2, n, generator=generator) < (0.5 if ranges.degrees else 0.0)
    sign_x = torch.where(coin[0] & mirror_x, -1.0, 1.0)
    sign_y = torch.where(coin[1] & mirror_y, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack([cos * zoom_x * sign_x, -sin * zoom_x, uniform(2 * ranges.shift)], dim=1)
    row_y = torch.stack(
        [sin * zoom_x * zoom_y, cos * zoom_x * zoom_y * sign_y, uniform(2 * ranges.shift)], dim=1
    )
    return torch.stack([row_x, row_y], dim=1)


def augment(
    rgb: Tensor,
    labels: Tensor,
    mirror_x: Tensor,
    mirror_y: Tensor,
    turn: Tensor,
    ranges: Augmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """uint8 rgb [B, S, S, 3] and labels [B, S, S] -> warped uint8 rgb and labels of the same shapes."""
    theta = warp_matrices(ranges, mirror_x, mirror_y, turn, generator)
    b, s = labels.shape[:2]
    grid = F.affine_grid(theta, [b, 1, s, s], align_corners=False)
    pixels = F.grid_sample(rgb.permute(0, 3, 1, 2).float(), grid, mode="bilinear", align_corners=False)
    warped = F.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].to(
        torch.uint8
    )
    gain = torch.exp((torch.rand(b, 1, 1, 1, generator=generator) * 2 - 1) * ranges.contrast)
    tint = (torch.rand(b, 3, 1, 1, generator=generator) * 2 - 1) * ranges.brightness * 0.3
    gray = (rgb[..., 0] == rgb[..., 1]).flatten(1).all(1).view(b, 1, 1, 1)
    lift = (torch.rand(b, 1, 1, 1, generator=generator) * 2 - 1) * ranges.brightness + torch.where(
        gray, 0.0, tint
    )
    noise = torch.randn(b, 1, s, s, generator=generator) * ranges.noise if ranges.noise else 0.0
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = (pixels - mean) * gain + mean + 255 * (lift + noise)
    return pixels.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1), warped
