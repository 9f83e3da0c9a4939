"""What the champion outlines in replay pictures, to which a round holds its challenger (learning without forgetting: Li and
Hoiem, ECCV 2016). Replay is there so that nothing changes; the labels of its few pictures, taught in every round, would move the
outlines of all others towards theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from medsegr.model.medsegr import Batch, MedSegR
from medsegr.rounds.features import FeatureCase, stack
from medsegr.rounds.replay import prompted_by_name

Held = Mapping[FeatureCase, Mapping[int, Tensor]]
"""Picture -> row of `Grounding.names` -> mask [S/2, S/2] bool."""


@torch.no_grad()
def outlines_to_hold(model: MedSegR, pictures: Sequence[FeatureCase], n_known: int) -> Held:
    """What `model`, prompted by name, draws of the structures that each picture shows, the first `n_known`, which it knows."""
    device = str(next(model.parameters()).device)
    found = {}
    for picture in pictures:
        targets = [n for n, name in enumerate(model.config.targets[:n_known]) if name in picture.case.present]
        if targets:
            features = model.encoder.read(stack([picture], device)[0])
            masks = prompted_by_name(model, features, targets).logits > 0
            found[picture] = {n: mask.cpu() for n, mask in zip(targets, masks, strict=True) if mask.any()}
    return found


def truth_or_held(batch: Batch, drawn: Sequence[FeatureCase], held: Held) -> Tensor:
    """Masks [M, S/2, S/2] bool that the decoded ones of `batch` are to be like: what is held, else what the labels say."""
    like = batch.truth.clone()
    for n, (query, row) in enumerate(
        zip(batch.decode_query.tolist(), batch.decode_image.tolist(), strict=True)
    ):
        mask = held.get(drawn[row], {}).get(int(batch.seg_target[query]))
        if mask is not None and bool(batch.truth[n].any()):
            like[n] = mask.to(like.device)
    return like
