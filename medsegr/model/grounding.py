"""Pixel-level grounding: SAM's prompt encoder and mask decoder, fed with `[SEG]` states instead of clicks alone.

The decoder keeps `segment_anything`'s two-way transformer and hypernetwork and adds the encoder's maps of strides 8, 4 and 2
to the up-scaled embedding, as SAM 2 does with strides 8 and 4.
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


@dataclass
class Masks:
    """`logits` [N, S/2, S/2]; `quality` [N] logit of the Dice to be expected; `presence` [N] logit of "is in this image"."""

    logits: Tensor
    quality: Tensor
    presence: Tensor


class HighResolutionMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """SAM's `MaskDecoder` with skips, one mask per prompt and a presence score."""

    def __init__(self, dim: int, use_skips: bool) -> None:
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
        self.use_skips = use_skips
        self.fine_hypernetwork = MLP(dim, dim, dim // 8, 3)
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
        conv1, norm, act1, conv2, act2 = self.output_upscaling
        x = conv1(image.transpose(1, 2).reshape(embedding.shape))
        x = act1(norm(x + _per_prompt(features.skips[0], chooser) if self.use_skips else x))
        x = conv2(x)
        x = act2(x + _per_prompt(features.skips[1], chooser) if self.use_skips else x)
        logits = torch.einsum("nc,nchw->nhw", self.output_hypernetworks_mlps[0](states[:, 1]), x)
        logits = F.interpolate(logits.unsqueeze(1), scale_factor=2, mode="bilinear", align_corners=False)[
            :, 0
        ]
        if self.use_skips:
            logits = logits + self._fine(features.skips[2], image_index, self.fine_hypernetwork(states[:, 1]))
        head = states[:, 0]
        return Masks(logits, self.iou_prediction_head(head)[:, 0], self.presence_head(head)[:, 0])

    @staticmethod
    def _fine(skip: Tensor, image_index: Tensor, weights: Tensor) -> Tensor:
        """Stride-2 detail [N, h, w]: each prompt's weights over its image's map, without copying the map per prompt."""
        fine = F.gelu(skip).flatten(2)
        out = weights.new_zeros((len(weights), fine.shape[2]))
        for row in sorted(set(image_index.tolist())):
            chosen = (image_index == row).nonzero()[:, 0]
            out = out.index_copy(0, chosen, weights[chosen].to(out.dtype) @ fine[row].to(out.dtype))
        return out.view(-1, *skip.shape[-2:])


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
        self.decoder = HighResolutionMaskDecoder(dim, config.high_resolution_skips)

    def forward(
        self, features: ImageFeatures, image_index: Tensor, states: Tensor, points: Tensor, labels: Tensor
    ) -> Masks:
        """Decode one mask per state.

        features: maps of B images; image_index [N] int64, the image of each prompt; states [N, C] language-model states;
        points [N, P, 2] as (x, y) pixels of the model's square; labels [N, P] 1 inside, 0 outside, -1 no click.
        """
        sparse = self.project(states).view(-1, self.n_tokens, self.dim)
        encoder = self.prompt_encoder
        clicks = encoder._embed_points(points, labels, pad=False)
        position = encoder.pe_layer(features.embedding.shape[-2:]).unsqueeze(0).to(sparse.dtype)
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).to(sparse.dtype)
        return self.decoder.decode(
            features, image_index, position, torch.cat([sparse, clicks.to(sparse.dtype)], dim=1), dense
        )
