"""The small convolutional image encoder of the embedded preset: one pass gives every map that the two modules read.

A residual encoder and a U-shaped decoder (Ronneberger et al. 2015) with maps at strides 4 and 2. What is expensive is done once
per image here; a prompt only weighs the finished maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medsegr.model.overview import Overview
from medsegr.model.presets import ModelConfig


@dataclass
class ImageFeatures:
    """What is computed once per image and cached.

    `embedding` [B, G, S/16, S/16] is what SAM's decoder attends to; `skips` are the finished maps at strides 4 and 2
    ([B, P4, S/4, S/4] and [B, P2, S/2, S/2]); `context` [B, K + N, C] are the tokens of the language model: an overview,
    then the image at stride 32; `present` [B, n_targets] are the logits that the overview is made of.
    """

    embedding: Tensor
    skips: tuple[Tensor, ...]
    context: Tensor
    present: Tensor

    @property
    def n_bytes(self) -> int:
        """Memory that the maps occupy."""
        return sum(
            t.numel() * t.element_size() for t in (self.embedding, self.context, self.present, *self.skips)
        )


@dataclass
class Trunk:
    """Maps of the convolutions, before anything that a fine-tuning round may change: `d16` [B, W16, S/16, S/16], `d4`
    [B, W4, S/4, S/4], `d2` [B, W2, S/2, S/2], and `deep` [B, (S/32)^2, D] tokens at stride 32."""

    d16: Tensor
    d4: Tensor
    d2: Tensor
    deep: Tensor


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut (He et al. 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(y)))


class UpBlock(nn.Module):
    """A coarse map, doubled, plus the encoder's map of that stride, mixed by a 3x3 convolution."""

    def __init__(self, coarse: int, skip: int, channels: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(coarse, channels, 1, bias=False)
        self.skip = nn.Conv2d(skip, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        doubled = F.interpolate(
            self.coarse(coarse), size=skip.shape[-2:], mode="bilinear", align_corners=False
        )
        mixed = F.relu(self.norm1(doubled + self.skip(skip)))
        return F.relu(self.norm2(self.conv(mixed)))


class ConvEncoder(nn.Module):
    """[B, 3, S, S] normalised pixels -> `ImageFeatures`; S a multiple of 32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, w = config.encoder_channels, config.pixel_widths
        self.stem = nn.Sequential(nn.Conv2d(5, c[0], 3, 2, 1, bias=False), nn.BatchNorm2d(c[0]), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(c[i], c[i + 1], 2), *(ResidualBlock(c[i + 1], c[i + 1]) for _ in range(n - 1))
            )
            for i, n in enumerate(config.encoder_blocks)
        )
        inputs = (c[4], *w[:3])
        self.ups = nn.ModuleList(
            UpBlock(coarse, c[3 - i], width) for i, (coarse, width) in enumerate(zip(inputs, w, strict=True))
        )
        self.embed = nn.Conv2d(w[0], config.grounding_dim, 1)
        self.context = nn.Linear(c[4] + w[0], config.context_dim)
        self.context_norm = nn.LayerNorm(config.context_dim)
        self.overview = Overview(config, c[4] + w[0], w[2], w[3])

    def forward(self, pixels: Tensor) -> ImageFeatures:
        return self.read(self.trunk(pixels))

    def trunk(self, pixels: Tensor) -> Trunk:
        """[B, 3, S, S] normalised pixels -> the maps of the convolutions."""
        maps = [self.stem(_with_place(pixels).to(memory_format=torch.channels_last))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        x, finished = maps[-1], []
        for up, skip in zip(self.ups, reversed(maps[:-1]), strict=True):
            x = up(x, skip)
            finished.append(x)
        d16, _, d4, d2 = finished
        deep = torch.cat([maps[-1], F.avg_pool2d(d16, 2)], dim=1).flatten(2).transpose(1, 2)
        return Trunk(d16, d4, d2, deep)

    def read(self, trunk: Trunk) -> ImageFeatures:
        """What the two modules read of the maps."""
        context = self.context_norm(self.context(trunk.deep))
        overview, present = self.overview(trunk.deep, trunk.d4)
        tokens = torch.cat([overview.to(context.dtype), context], dim=1)
        return ImageFeatures(self.embed(trunk.d16), (trunk.d4, trunk.d2), tokens, present)


def _with_place(pixels: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, 5, H, W] with column and row in [-1, 1]: left and right must be told apart (Liu et al. 2018)."""
    b, _, h, w = pixels.shape
    row = (
        torch.linspace(-1, 1, h, device=pixels.device, dtype=pixels.dtype).view(1, 1, h, 1).expand(b, 1, h, w)
    )
    column = torch.linspace(-1, 1, w, device=pixels.device, dtype=pixels.dtype).expand(b, 1, h, w)
    return torch.cat([pixels, column, row], dim=1)
