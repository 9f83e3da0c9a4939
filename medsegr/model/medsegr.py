"""MedSeg-R (Huang et al., arXiv 2506.10465) as a plain module: encoder, global context understanding, pixel-level grounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from medsegr.model.context import GlobalContext
from medsegr.model.cross_attention import contexts, new_grounding
from medsegr.model.encoder import ConvEncoder, ImageFeatures
from medsegr.model.grounding import Masks
from medsegr.model.losses import LossWeights, dice_loss, hard_dice, mask_bce
from medsegr.model.packing import Packed
from medsegr.model.presets import ModelConfig


@dataclass
class Batch:
    """One training step: B images, their packed conversations, N `[SEG]` tokens and M masks to be decoded.

    pixels [B, 3, S, S] normalised; seg_row, seg_column [N] say where each `[SEG]` stands in `packed`; decode_query [M] and
    decode_image [M] pair a `[SEG]` with an image (its own, or another of the same set, so that a token learns to be used on
    slices it was not written for); truth [M, S/2, S/2] bool; points [M, P, 2] (x, y), point_labels [M, P];
    present [B, n_targets] is 1 for targets shown, 0 for those not shown, -1 where unknown; seg_target [N] the number of the known
    structure that a `[SEG]` stands for, or -1.
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
    seg_target: Tensor


@dataclass
class VisionBatch:
    """One step of the vision part alone: B images, M pairs of an image and a known structure, Q of them decoded by prompt.

    pixels [B, 3, S, S] normalised; image, target [M] int64, pairs of one image stand together; truth [M, S/2, S/2] bool;
    weight [M] what a pair counts; prompted [Q] indices into the pairs; points [Q, P, 2] (x, y), point_labels [Q, P];
    present [B, n_targets] as in `Batch`.
    """

    pixels: Tensor
    image: Tensor
    target: Tensor
    truth: Tensor
    weight: Tensor
    prompted: Tensor
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
        self.grounding = new_grounding(config)

    def normalise(self, rgb: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] -> float [B, 3, S, S] as the encoder expects."""
        return ((rgb.permute(0, 3, 1, 2).float() / 255) - self.config.pixel_mean) / self.config.pixel_std

    def forward(self, batch: Batch, weights: LossWeights) -> dict[str, Tensor]:
        """Losses by name; "loss" is their weighted sum."""
        return self.losses(self.encoder(batch.pixels), batch, weights)

    def losses(
        self,
        features: ImageFeatures,
        batch: Batch,
        weights: LossWeights,
        like: Tensor | None = None,
        as_answered: bool = False,
    ) -> dict[str, Tensor]:
        """The same from finished features; the batch's pixels are not looked at. `like` [M, S/2, S/2]: outlines to be learnt in
        place of the batch's truth (by which quality and presence are told all the same). `as_answered`: prompts are decoded as in
        an answer (`Grounding.agreeing`), so that the mask decoder learns nothing from those that stand for a neighbour."""
        read = self.context.read(features.context, batch.packed, batch.question_states)
        hidden = read[:, features.context.shape[1] :]
        text = self.context.text_loss(hidden, batch.packed)
        losses = {"text": text, **_overview_loss(features, batch.present)}
        if batch.decode_query.numel():
            prompts = self._prompts(features, read, batch)
            used = prompts
            if as_answered and self.config.prompts_at_names:
                used = self.grounding.agreeing(prompts, batch.seg_target)
            masks = self.grounding.decode(
                features, batch.decode_image, used[batch.decode_query], batch.points, batch.point_labels
            )
            losses |= mask_losses(masks, batch.truth, like)
            names, named = self.grounding.names.weight, batch.seg_target >= 0
            finished = not names.requires_grad  # in the language stage: what the vision stage has learnt
            if finished and bool(named.any()):
                own = prompts[named].flatten(1)[
                    :, -names.shape[1] :
                ]  # the last token of a context, or all of a prompt
                losses["names"] = F.mse_loss(own.float(), names[batch.seg_target[named]].float())
        losses["loss"] = weights.total(losses)
        return losses

    def prompts(self, features: ImageFeatures, batch: Batch) -> Tensor:
        """[N, prompt_tokens * G]: what each `[SEG]` of a batch's answers asks the grounding for."""
        return self._prompts(
            features, self.context.read(features.context, batch.packed, batch.question_states), batch
        )

    def _prompts(self, features: ImageFeatures, read: Tensor, batch: Batch) -> Tensor:
        column = batch.seg_column - (0 if self.config.seg_state == "token" else 1)
        if self.config.grounding_head == "cross_attention":
            states = contexts(read, batch.packed.segment, batch.seg_row, column)
        else:
            states = read[:, features.context.shape[1] :][batch.seg_row, column]
        prompts: Tensor = self.grounding.project(states)
        return prompts

    def forward_vision(self, batch: VisionBatch, weights: LossWeights) -> dict[str, Tensor]:
        """Losses of the vision part: every known structure of every image outlined at once by the overview's weights (deep
        supervision), some of them also by the mask decoder, prompted by name; "pair_dice" [M] is what the former reached."""
        features = self.encoder(batch.pixels)
        coarse, fine = features.skips[-2:]
        counts = torch.bincount(batch.image, minlength=len(coarse)).tolist()
        rows = zip(torch.split(batch.target, counts), coarse.unbind(0), fine.unbind(0), strict=True)
        outline = torch.cat([self.encoder.overview.outline(t, c, f) for t, c, f in rows if len(t)])
        losses = _overview_loss(features, batch.present)
        losses["dense_bce"] = mask_bce(outline, batch.truth, batch.weight)
        losses["dense_dice"] = dice_loss(outline, batch.truth, batch.weight)
        chosen = batch.prompted
        masks = self.grounding.decode(
            features,
            batch.image[chosen],
            self.grounding.names(batch.target[chosen]),
            batch.points,
            batch.point_labels,
        )
        losses |= mask_losses(masks, batch.truth[chosen])
        losses["loss"] = weights.total(losses)
        losses["pair_dice"] = hard_dice(outline, batch.truth)
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
        targets: Tensor | None = None,
    ) -> Masks:
        """Every state, or context of `cross_attention`, on every image of `features`: masks image-major, N = B * n_states.

        points [P, 2] as (x, y) in the model's square and labels [P] hold for all of them; targets [n_states] are the structures
        that the words name (`Grounding.agreeing`).
        """
        b, n = features.embedding.shape[0], states.shape[0]
        index = torch.arange(b, device=states.device).repeat_interleave(n)
        if points is None or labels is None:
            points, labels = states.new_zeros((1, 2)), -torch.ones(1, device=states.device)
        masks: Masks = self.grounding(
            features,
            index,
            states.repeat(b, *[1] * (states.ndim - 1)),
            points.expand(b * n, -1, -1),
            labels.expand(b * n, -1),
            targets.repeat(b) if targets is not None and self.config.prompts_at_names else None,
        )
        return masks


def _overview_loss(features: ImageFeatures, present: Tensor) -> dict[str, Tensor]:
    known = present >= 0
    if not bool(known.any()):
        return {}
    return {
        "overview": F.binary_cross_entropy_with_logits(
            features.present.float()[known], present[known].float()
        )
    }


def mask_losses(masks: Masks, truth: Tensor, like: Tensor | None = None) -> dict[str, Tensor]:
    """Losses of decoded masks against truth [N, h, w], in shape against `like` where given; "train_dice" is the mean hard Dice of
    those that are present."""
    like = truth if like is None else like
    present = truth.flatten(1).any(1)
    dice = hard_dice(masks.logits, truth)
    return {
        "bce": mask_bce(masks.logits, like),
        "dice": dice_loss(masks.logits, like),
        "presence": F.binary_cross_entropy_with_logits(masks.presence.float(), present.float()),
        "quality": F.binary_cross_entropy_with_logits(masks.quality.float(), dice),
        "train_dice": dice[present].mean() if bool(present.any()) else dice.new_zeros(()),
    }
