"""The small convolutional image encoder of the embedded preset: one pass gives every map that the two modules read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medsegr.model.presets import ModelConfig


@dataclass
class ImageFeatures:
    """What is computed once per image and cached.

    `embedding` [B, G, S/16, S/16] is what SAM's decoder attends to; `skips` are maps at strides 8, 4 and 2, already projected to
    the decoder's widths G/4, G/8, G/8; `context` [B, K + N, C] are the tokens of the language model: an overview,
    then the image at stride 32; `present` [B, n_targets] are the logits that the overview is made of.
    """

    embedding: Tensor
    skips: tuple[Tensor, ...]
    context: Tensor
    present: Tensor

    @property
    def n_bytes(self) -> int:
        """Memory that the maps occupy."""
        return sum(t.numel() * t.element_size() for t in (self.embedding, self.context, *self.skips))


class Overview(nn.Module):
    """Which known structures an image seems to show, as tokens that the language model can look up before it answers.

    The `n_tokens` most likely targets become one token each: the target's embedding plus how likely it is.
    """

    def __init__(self, dim: int, n_targets: int, n_tokens: int = 16) -> None:
        super().__init__()
        self.n_tokens = min(n_tokens, n_targets)
        self.score = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, n_targets))
        self.names = nn.Embedding(n_targets, dim)
        self.likely = nn.Linear(1, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens [B, N, C] -> overview tokens [B, K, C] and logits [B, n_targets]."""
        pooled = torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=1)
        logits = self.score(pooled)
        best = logits.float().topk(self.n_tokens, dim=1)
        likely = self.likely(best.values.sigmoid().unsqueeze(-1))
        return self.norm(self.names(best.indices) + likely), logits


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


class ConvEncoder(nn.Module):
    """[B, 3, S, S] normalised pixels -> `ImageFeatures`; S a multiple of 32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, g = config.encoder_channels, config.grounding_dim
        self.stem = nn.Sequential(nn.Conv2d(3, c[0], 3, 2, 1, bias=False), nn.BatchNorm2d(c[0]), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(c[i], c[i + 1], 2), *(ResidualBlock(c[i + 1], c[i + 1]) for _ in range(n - 1))
            )
            for i, n in enumerate(config.encoder_blocks)
        )
        self.deep = nn.Conv2d(c[4], g, 1)
        self.lateral = nn.Conv2d(c[3], g, 1)
        self.merge = nn.Conv2d(g, g, 3, 1, 1)
        widths = (g // 4, g // 8, g // 8)
        self.skips = nn.ModuleList(nn.Conv2d(c[i], w, 1) for i, w in zip((2, 1, 0), widths, strict=True))
        self.context = nn.Linear(c[4] + c[3], config.context_dim)
        self.context_norm = nn.LayerNorm(config.context_dim)
        self.overview = Overview(config.context_dim, len(config.targets))

    def forward(self, pixels: Tensor) -> ImageFeatures:
        maps = [self.stem(pixels.to(memory_format=torch.channels_last))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        s2, s4, s8, s16, s32 = maps
        deep = F.interpolate(self.deep(s32), size=s16.shape[-2:], mode="bilinear", align_corners=False)
        embedding = self.merge(F.relu(deep + self.lateral(s16)))
        tokens = torch.cat([s32, F.avg_pool2d(s16, 2)], dim=1).flatten(2).transpose(1, 2)
        skips = tuple(project(m) for project, m in zip(self.skips, (s8, s4, s2), strict=True))
        context = self.context_norm(self.context(tokens))
        overview, present = self.overview(context)
        return ImageFeatures(embedding, skips, torch.cat([overview.to(context.dtype), context], dim=1), present)
