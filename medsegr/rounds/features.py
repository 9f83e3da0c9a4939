"""Cached encoder maps: a round never runs the encoder twice on the same picture, since it leaves its convolutions as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medsegr.model.encoder import Trunk
from medsegr.model.medsegr import MedSegR
from medsegr.training.augment import NONE, Augmentation
from medsegr.training.batches import augmented
from medsegr.training.images import Case

VARIED = Augmentation(contrast=0.5, brightness=0.2)
"""Wider than in training: a site's few pictures must stand for stains and exposures that they do not show."""


@dataclass(frozen=True, eq=False)
class FeatureCase:
    """One picture ready to be trained on: what is asked about it, its label map [S, S] uint8 and its maps (B = 1, half
    precision)."""

    case: Case
    labels: Tensor
    trunk: Trunk


@torch.inference_mode()
def encode(
    model: MedSegR, cases: Sequence[Case], variants: int, seed: int, plain: Trunk | None = None
) -> list[FeatureCase]:
    """Each case as it is and `variants - 1` times warped and re-lit. `plain`: maps of the (one) case as it is, where they are
    at hand."""
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    found = []
    for case in cases:
        for n in range(variants):
            if n == 0 and plain is not None:
                found.append(FeatureCase(case, torch.from_numpy(case.labels.copy()), plain))
                continue
            rgb, labels = augmented([case], NONE if n == 0 else VARIED, generator, swap=False)
            trunk = model.encoder.trunk(model.normalise(rgb).to(device))
            found.append(FeatureCase(case, labels[0].clone(), _half(trunk)))
    return found


def stack(features: Sequence[FeatureCase], device: str = "cpu") -> tuple[Trunk, Tensor]:
    """Maps of several pictures of one size in float32 and their label maps [B, S, S]."""
    names = Trunk.__dataclass_fields__
    maps = {name: torch.cat([getattr(f.trunk, name) for f in features]).to(device).float() for name in names}
    return Trunk(**maps), torch.stack([f.labels for f in features])


def _half(trunk: Trunk) -> Trunk:
    return Trunk(**{name: getattr(trunk, name).half().cpu().clone() for name in Trunk.__dataclass_fields__})
