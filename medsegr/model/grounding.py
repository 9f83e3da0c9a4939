"""Pixel-level grounding: SAM's prompt encoder and mask decoder, fed with `[SEG]` states instead of clicks alone.

The decoder keeps `segment_anything`'s two-way transformer, up-scaling and hypernetwork. Further hypernetworks weigh the
encoder's finished maps of strides 4 and 2, so that detail costs one product per prompt (SAM 2 adds such maps before its
hypernetwork, which costs convolutions per prompt).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn
from torch.nn import functional as F

from medsegr.model.encoder import ImageFeatures
from medsegr.model.presets import ModelConfig

CLEAR = 0.5
"""A prompt stands for a structure if its name is at most this share as far away as any other's."""


@dataclass
class Masks:
    """`logits` [N, S/2, S/2]; `quality` [N] logit of the Dice to be expected; `presence` [N] logit of "is in this image"."""

    logits: Tensor
    quality: Tensor
    presence: Tensor


class HighResolutionMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """SAM's `MaskDecoder` with skips, one mask per prompt and a presence score."""

    def __init__(self, dim: int, skip_widths: tuple[int, ...]) -> None:
        transformer = TwoWayTransformer(
            depth=2, embedding_dim=dim, num_heads=8 if dim % 8 == 0 else 4, mlp_dim=4 * dim
        )
        super().__init__(
            transformer_dim=dim,
            transformer=transformer,
            num_multimask_outputs=0,
            iou_head_depth=2,
            iou_head_hidden_dim=dim,
        )
        self.skip_hypernetworks = nn.ModuleList(MLP(dim, dim, width + 1, 3) for width in skip_widths)
        self.presence_head = MLP(dim, dim, 1, 2)

    def decode(
        self, features: ImageFeatures, image_index: Tensor, position: Tensor, sparse: Tensor, dense: Tensor
    ) -> Masks:
        """One mask per prompt: image_index [N]; position [1, D, h, w]; sparse [N, T, D]; dense [1, D, h, w]."""
        n = sparse.shape[0]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight], dim=0)
        tokens = torch.cat([output_tokens.unsqueeze(0).expand(n, -1, -1), sparse], dim=1)
        chooser = F.one_hot(image_index, len(features.embedding))
        embedding = _per_prompt(features.embedding, chooser) + dense
        states, image = self.transformer(embedding, position.expand(n, -1, -1, -1), tokens)
        mask_token = states[:, 1]
        upscaled = self.output_upscaling(image.transpose(1, 2).reshape(embedding.shape))
        logits = torch.einsum("nc,nchw->nhw", self.output_hypernetworks_mlps[0](mask_token), upscaled)
        for skip, hypernetwork in zip(features.skips, self.skip_hypernetworks, strict=False):
            if logits.shape[1:] != skip.shape[2:]:
                logits = _resized(logits, skip.shape[2:])
            logits = logits + _weighed(skip, image_index, hypernetwork(mask_token))
        if not self.skip_hypernetworks:
            logits = _resized(logits, features.skips[-1].shape[2:])
        head = states[:, 0]
        return Masks(logits, self.iou_prediction_head(head)[:, 0], self.presence_head(head)[:, 0])


def _resized(logits: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(logits.unsqueeze(1), size=size, mode="bilinear", align_corners=False)[:, 0]


def _weighed(skip: Tensor, image_index: Tensor, weights: Tensor) -> Tensor:
    """[N, h, w]: each prompt's weights [N, C + 1] (the last one is a bias) over its image's map [B, C, h, w], without copying
    the map per prompt."""
    maps = skip.flatten(2).unbind(
        0
    )  # one gradient for all rows, where indexing would make one of full size for each
    order = torch.argsort(image_index, stable=True)
    counts = torch.bincount(image_index, minlength=len(maps)).tolist()
    groups = torch.split(weights[order], counts)
    out = [w[:, :-1] @ m.to(w.dtype) + w[:, -1:] for w, m in zip(groups, maps, strict=True) if len(w)]
    return torch.cat(out)[torch.argsort(order)].view(-1, *skip.shape[-2:])


def _per_prompt(maps: Tensor, chooser: Tensor) -> Tensor:
    """[B, C, h, w] -> [N, C, h, w] by a one-hot product [N, B]: on a CPU its gradient is far quicker than that of indexing."""
    return (chooser.to(maps.dtype) @ maps.flatten(1)).view(-1, *maps.shape[1:])


class Grounding(nn.Module):
    """`[SEG]` states and optional clicks -> masks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, side = config.grounding_dim, config.image_size // 16
        self.n_tokens, self.dim = config.prompt_tokens, dim
        self.project = nn.Sequential(
            nn.Linear(config.context_dim, config.context_dim),
            nn.ReLU(),
            nn.Linear(config.context_dim, dim * config.prompt_tokens),
        )
        self.prompt_encoder = PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(side, side),
            input_image_size=(config.image_size,) * 2,
            mask_in_chans=4,
        )
        del self.prompt_encoder.mask_downscaling  # masks are never prompts here
        self.decoder = HighResolutionMaskDecoder(
            dim, config.pixel_widths[2:] if config.high_resolution_skips else ()
        )
        self.names = nn.Embedding(len(config.targets), dim * config.prompt_tokens)

    def forward(
        self,
        features: ImageFeatures,
        image_index: Tensor,
        states: Tensor,
        points: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
    ) -> Masks:
        """Decode one mask per state.

        features: maps of B images; image_index [N] int64, the image of each prompt; states [N, C] language-model states;
        points [N, P, 2] as (x, y) pixels of the model's square; labels [N, P] 1 inside, 0 outside, -1 no click; targets [N]
        int64, see `agreeing`.
        """
        prompts = self.project(states)
        if targets is not None:
            prompts = self.agreeing(prompts, targets)
        return self.decode(features, image_index, prompts, points, labels)

    def agreeing(self, prompts: Tensor, targets: Tensor) -> Tensor:
        """Prompts [N, prompt_tokens * G] of answers whose words name the structures `targets` [N] (-1: none that is known). Where
        a prompt does not stand clearly for what the words name, that structure's row of `names` takes its place, so that a
        sentence and its mask speak of the same thing (states of neighbouring teeth are easily taken for each other)."""
        row = targets.clamp(min=0).unsqueeze(1)
        distance = torch.cdist(prompts.float(), self.names.weight.float())
        own = distance.gather(1, row)
        nearest_other = distance.scatter(1, row, torch.inf).amin(1, keepdim=True)
        unclear = (targets.unsqueeze(1) >= 0) & (own > CLEAR * nearest_other)
        return torch.where(unclear, self.names(row[:, 0]).to(prompts.dtype), prompts)

    def decode(
        self, features: ImageFeatures, image_index: Tensor, prompts: Tensor, points: Tensor, labels: Tensor
    ) -> Masks:
        """The same for finished prompts [N, prompt_tokens * G]: projected states, or rows of `names` (which stand for the known
        structures while the vision part is trained before the language part)."""
        sparse = prompts.view(-1, self.n_tokens, self.dim)
        encoder = self.prompt_encoder
        clicks = encoder._embed_points(points, labels, pad=False)
        position = encoder.pe_layer(features.embedding.shape[-2:]).unsqueeze(0).to(sparse.dtype)
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).to(sparse.dtype)
        return self.decoder.decode(
            features, image_index, position, torch.cat([sparse, clicks.to(sparse.dtype)], dim=1), dense
        )
