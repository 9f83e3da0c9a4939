"""MedSeg-R in large: context and grounding as a plain module with the interface that the predictor knows from `MedSegR`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medsegr.model.encoder import ImageFeatures
from medsegr.model.grounding import Masks
from medsegr.model.large.context import LargeContext
from medsegr.model.large.grounding import SamGrounding
from medsegr.model.large.presets import LargeConfig
from medsegr.model.losses import LossWeights
from medsegr.model.medsegr import mask_losses

DECODED_AT_ONCE = 16


@dataclass
class LargeBatch:
    """One step: B conversations and the masks to be decoded.

    `inputs` and `labels` [B, T] from `LargeContext.collate`; embeddings [B, D, h, w] of the frozen image encoder; mask i is that
    of the batch's `[SEG]` number decode_query[i], row by row, on image decode_image[i]; truth [M, side / 4, side / 4] bool.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    embeddings: Tensor
    decode_query: Tensor
    decode_image: Tensor
    truth: Tensor


class LargeMedSegR(nn.Module):
    """Image and question -> answer text, one mask and one confidence per `[SEG]`."""

    def __init__(self, config: LargeConfig, base: Any, processor: Any) -> None:
        super().__init__()
        self.config = config
        self.context = LargeContext(config, base, processor)
        self.grounding = SamGrounding(config, self.context.hidden_size)

    def forward(self, batch: LargeBatch, weights: LossWeights) -> dict[str, Tensor]:
        """Losses by name; "loss" is their weighted sum."""
        hidden, text = self.context(batch.inputs, batch.labels)
        losses = {"text": text}
        if batch.decode_query.numel():
            row, column = torch.nonzero(batch.labels == self.context.seg_id, as_tuple=True)
            states = hidden[row, column + 1 if self.config.seg_state == "token" else column]
            masks = self.grounding.decode(batch.embeddings, batch.decode_image, states[batch.decode_query])
            losses |= mask_losses(masks, batch.truth)
        losses["loss"] = weights.total(losses)
        return losses

    @torch.inference_mode()
    def encode_picture(self, rgb: Tensor) -> ImageFeatures:
        """[H, W, 3] uint8 -> features: SAM's embedding, and the picture itself, which the language model reads once asked."""
        embedding = self.grounding.embed(rgb)
        nothing = torch.full((1, len(self.config.targets)), float("-inf"))
        return ImageFeatures(embedding, (), rgb[None], nothing)

    @torch.inference_mode()
    def decode_masks(
        self,
        features: ImageFeatures,
        states: Tensor,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Masks:
        """Every state [n, C] on one picture: logits over the part of SAM's square that the picture fills, without the padding.

        points [P, 2] (x, y) in the square that the picture would fill if stretched, labels [P]: they hold for all states.
        `targets` has no use here: there are no names to compare prompts with.
        """
        side = self.config.image_size
        rows, columns = self.grounding.filled(*features.context.shape[1:3])
        if points is not None and labels is not None:
            points = points * points.new_tensor([columns / side, rows / side])
        found = []
        for some in torch.split(states, DECODED_AT_ONCE):
            n = len(some)
            clicks = None if points is None else points.expand(n, -1, -1)
            kinds = None if labels is None else labels.expand(n, -1)
            index = torch.zeros(n, dtype=torch.long, device=states.device)
            masks = self.grounding.decode(features.embedding, index, some, clicks, kinds)
            whole = F.interpolate(masks.logits[None], (side, side), mode="bilinear", align_corners=False)[0]
            found.append(Masks(whole[:, :rows, :columns], masks.quality, masks.presence))
        return Masks(*(torch.cat([getattr(m, f) for m in found]) for f in Masks.__dataclass_fields__))
