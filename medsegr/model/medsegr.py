"""MedSeg-R (Huang et al., arXiv 2506.10465) as a plain module: encoder, global context understanding, pixel-level grounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from medsegr.model.context import GlobalContext
from medsegr.model.encoder import ConvEncoder, ImageFeatures
from medsegr.model.grounding import Grounding, Masks
from medsegr.model.losses import LossWeights, dice_loss, mask_bce
from medsegr.model.packing import Packed
from medsegr.model.presets import ModelConfig


@dataclass
class Batch:
    """One training step: B images, their packed conversations, N `[SEG]` tokens and M masks to be decoded.

    pixels [B, 3, S, S] normalised; seg_row, seg_column [N] say where each `[SEG]` stands in `packed`; decode_query [M] and
    decode_image [M] pair a `[SEG]` with an image (its own, or another of the same set, so that a token learns to be used on
    slices it was not written for); truth [M, S/2, S/2] bool; points [M, P, 2] (x, y), point_labels [M, P];
    present [B, n_targets] is 1 for targets shown, 0 for those declared absent, -1 where unknown.
    """

    pixels: Tensor
    packed: Packed
    question_states: Tensor
    seg_row: Tensor
    seg_column: Tensor
    decode_query: Tensor
    decode_image: Tensor
    truth: Tensor
    points: Tensor
    point_labels: Tensor
    present: Tensor


class MedSegR(nn.Module):
    """Image and question -> answer text, one mask and one confidence per `[SEG]`."""

    def __init__(self, config: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.config = config
        self.encoder = ConvEncoder(config)
        self.context = GlobalContext(config, tokenizer)
        self.grounding = Grounding(config)

    def normalise(self, rgb: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] -> float [B, 3, S, S] as the encoder expects."""
        return ((rgb.permute(0, 3, 1, 2).float() / 255) - self.config.pixel_mean) / self.config.pixel_std

    def forward(self, batch: Batch, weights: LossWeights) -> dict[str, Tensor]:
        """Losses by name; "loss" is their weighted sum."""
        features = self.encoder(batch.pixels)
        hidden, text = self.context(features.context, batch.packed, batch.question_states)
        losses = {"text": text}
        known = batch.present >= 0
        total = weights.text * text
        if bool(known.any()):
            losses["overview"] = F.binary_cross_entropy_with_logits(
                features.present.float()[known], batch.present[known].float()
            )
            total = total + weights.overview * losses["overview"]
        if batch.decode_query.numel():
            offset = 0 if self.config.seg_state == "token" else 1
            states = hidden[batch.seg_row, batch.seg_column - offset]
            masks: Masks = self.grounding(
                features, batch.decode_image, states[batch.decode_query], batch.points, batch.point_labels
            )
            truth = batch.truth
            present = truth.flatten(1).any(1)
            losses["bce"] = mask_bce(masks.logits, truth)
            losses["dice"] = dice_loss(masks.logits, truth)
            with torch.no_grad():
                hard = masks.logits > 0
                overlap = (hard & truth).flatten(1).sum(1).float()
                dice = 2 * overlap / (hard.flatten(1).sum(1) + truth.flatten(1).sum(1)).clamp(min=1)
            losses["presence"] = F.binary_cross_entropy_with_logits(masks.presence.float(), present.float())
            losses["quality"] = F.binary_cross_entropy_with_logits(masks.quality.float(), dice)
            total = total + sum(
                getattr(weights, name) * losses[name] for name in ("bce", "dice", "presence", "quality")
            )
            losses["train_dice"] = dice[present].mean() if bool(present.any()) else dice.new_zeros(())
        losses["loss"] = total
        return losses

    @torch.inference_mode()
    def encode_image(self, rgb: Tensor) -> ImageFeatures:
        """uint8 [B, S, S, 3] -> features; the model must be in eval mode."""
        features: ImageFeatures = self.encoder(self.normalise(rgb.to(next(self.parameters()).device)))
        return features

    @torch.inference_mode()
    def decode_masks(
        self,
        features: ImageFeatures,
        states: Tensor,
        points: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Masks:
        """Every state on every image of `features`: masks ordered image-major, N = B * n_states.

        points [P, 2] as (x, y) in the model's square and labels [P] hold for all of them.
        """
        b, n = features.embedding.shape[0], states.shape[0]
        index = torch.arange(b, device=states.device).repeat_interleave(n)
        if points is None or labels is None:
            points, labels = states.new_zeros((1, 2)), -torch.ones(1, device=states.device)
        masks: Masks = self.grounding(
            features, index, states.repeat(b, 1), points.expand(b * n, -1, -1), labels.expand(b * n, -1)
        )
        return masks
