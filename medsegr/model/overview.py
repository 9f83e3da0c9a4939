"""A first glance at an image: which known structures it seems to show, how large they are and where they lie.

The glance is a coarse segmentation of everything the model knows. The language model reads its most likely lines as tokens
before it answers; nothing that is drawn for a reply comes from here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medsegr.model.presets import ModelConfig

POOL = 2
"""The glance is taken at twice the stride of the map it reads."""
PEAK = 4
"""Pixels that decide whether a structure was seen at all."""


class Overview(nn.Module):
    """The `overview_tokens` most likely targets, one token each: embedding of the target, how likely, how large, where."""

    def __init__(self, config: ModelConfig, deep: int, coarse: int, fine: int) -> None:
        super().__init__()
        dim, n_targets = config.context_dim, len(config.targets)
        self.n_tokens = min(config.overview_tokens, n_targets)
        self.study = nn.Sequential(nn.Linear(2 * deep, dim), nn.ReLU(), nn.Linear(dim, n_targets))
        self.coarse_weight = nn.Parameter(torch.randn(n_targets, coarse) * coarse**-0.5)
        self.fine_weight = nn.Parameter(torch.randn(n_targets, fine) * 0.1 * fine**-0.5)
        self.bias = nn.Parameter(torch.full((n_targets,), -2.0))
        self.trust = nn.Parameter(torch.full((n_targets,), 0.3))
        self.names = nn.Embedding(n_targets, dim)
        self.facts = nn.Linear(4, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, deep: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """deep [B, N, D] tokens at stride 32 and coarse [B, P, h, w] -> overview tokens [B, K, C], logits [B, n_targets]."""
        pooled = torch.cat([deep.mean(dim=1), deep.amax(dim=1)], dim=1)
        small = F.avg_pool2d(coarse, POOL)
        seen = (self.coarse_weight.to(small.dtype) @ small.flatten(2)).float() + self.bias[:, None]
        peak = seen.topk(min(PEAK, seen.shape[2]), dim=2).values.mean(2)
        logits = self.study(pooled).float() + self.trust * peak
        best = logits.topk(self.n_tokens, dim=1).indices
        facts = self._facts(seen, small.shape[2:], logits)
        chosen = facts.gather(1, best.unsqueeze(-1).expand(-1, -1, facts.shape[2]))
        return self.norm(self.names(best) + self.facts(chosen)), logits

    @staticmethod
    def _facts(seen: Tensor, size: torch.Size, logits: Tensor) -> Tensor:
        """[B, n_targets, 4]: probability, root of the share of the image, column and row of the centre in [-1, 1]."""
        p = seen.sigmoid()
        total = p.sum(2)
        row = torch.linspace(-1, 1, size[0], device=p.device).view(-1, 1).expand(*size).flatten()
        column = torch.linspace(-1, 1, size[1], device=p.device).expand(*size).flatten()
        centre = [(p @ place) / total.clamp(min=1.0) for place in (column, row)]
        return torch.stack([logits.sigmoid(), (total / p.shape[2]).sqrt(), *centre], dim=2)

    def outline(self, target: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
        """Logits [T, H, W] of the targets [T] on one image's maps coarse [P, H/2, W/2] and fine [Q, H, W]: deep supervision."""
        rough = (self.coarse_weight[target].to(coarse.dtype) @ coarse.flatten(1)).view(
            len(target), *coarse.shape[1:]
        )
        rough = F.interpolate(rough[None], size=fine.shape[1:], mode="bilinear", align_corners=False)[0]
        detail = (self.fine_weight[target].to(fine.dtype) @ fine.flatten(1)).view_as(rough)
        return rough.float() + detail.float() + self.bias[target][:, None, None]
