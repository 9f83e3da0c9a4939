"""Pixel-level grounding with a whole SAM: its image encoder (frozen), prompt encoder (frozen) and mask decoder (trained).

Built from `segment_anything`'s own modules, so that the original state dicts fit.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn
from torch.nn import functional as F

from medsegr.model.grounding import Masks
from medsegr.model.large.presets import LargeConfig, SamKind


class ScoredMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """SAM's mask decoder that gives its first mask, with two more heads on the token that SAM reads its IoU from."""

    def __init__(self, kind: SamKind) -> None:
        dim = kind.prompt_dim
        transformer = TwoWayTransformer(
            depth=2, embedding_dim=dim, num_heads=kind.decoder_heads, mlp_dim=kind.decoder_mlp_dim
        )
        super().__init__(
            transformer_dim=dim, transformer=transformer, num_multimask_outputs=3, iou_head_hidden_dim=dim
        )
        self.presence_head = MLP(dim, dim, 1, 2)
        self.quality_head = MLP(dim, dim, 1, 2)

    def decode(self, embeddings: Tensor, position: Tensor, sparse: Tensor, dense: Tensor) -> Masks:
        """One mask per prompt: embeddings [N, D, h, w]; position, dense [1, D, h, w]; sparse [N, T, D]."""
        n = sparse.shape[0]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight], dim=0)
        tokens = torch.cat([output_tokens.expand(n, -1, -1), sparse], dim=1)
        states, image = self.transformer(embeddings + dense, position.expand(n, -1, -1, -1), tokens)
        upscaled = self.output_upscaling(image.transpose(1, 2).reshape(embeddings.shape))
        logits = torch.einsum("nc,nchw->nhw", self.output_hypernetworks_mlps[0](states[:, 1]), upscaled)
        score = states[:, 0]
        return Masks(logits, self.quality_head(score)[:, 0], self.presence_head(score)[:, 0])


def build_sam(kind: SamKind) -> Sam:
    """A SAM of this shape with fresh weights."""
    grid = kind.side // kind.patch
    return Sam(
        ImageEncoderViT(
            img_size=kind.side,
            patch_size=kind.patch,
            embed_dim=kind.width,
            depth=kind.depth,
            num_heads=kind.heads,
            out_chans=kind.prompt_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=kind.window,
            global_attn_indexes=kind.global_blocks,
        ),
        PromptEncoder(
            embed_dim=kind.prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(kind.side, kind.side),
            mask_in_chans=16,
        ),
        ScoredMaskDecoder(kind),
    )


class SamGrounding(nn.Module):
    """Pictures -> embeddings; `[SEG]` states and clicks -> masks in SAM's square."""

    def __init__(self, config: LargeConfig, hidden_size: int) -> None:
        super().__init__()
        self.kind, self.n_tokens = config.sam, config.prompt_tokens
        self.sam = build_sam(config.sam)
        self.sam.image_encoder.requires_grad_(False)
        self.sam.prompt_encoder.requires_grad_(False)
        self.project = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, config.sam.prompt_dim * config.prompt_tokens),
        )

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of SAM's square that a picture of this size fills."""
        side = self.kind.side
        if self.kind.pixels == "medsam":
            return side, side
        rows, columns = ResizeLongestSide.get_preprocess_shape(height, width, side)
        return int(rows), int(columns)

    def square(self, picture: Tensor) -> Tensor:
        """[H, W, 3] uint8 -> [1, 3, side, side] float32, resized and normalised as the weights expect."""
        device, side = self.sam.pixel_mean.device, self.kind.side
        if self.kind.pixels == "medsam":
            image = picture.permute(2, 0, 1)[None].to(device).float()
            image = F.interpolate(image, (side, side), mode="bicubic", align_corners=False, antialias=True)
            image = image.clamp(int(picture.min()), int(picture.max()))  # a cubic runs over at edges
            low, high = image.amin(), image.amax()
            return (image - low) / (high - low).clamp(min=1e-8)
        resized = ResizeLongestSide(side).apply_image(np.ascontiguousarray(picture.cpu().numpy()))
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].to(device)
        square: Tensor = self.sam.preprocess(pixels.float())
        return square

    @torch.no_grad()
    def embed(self, picture: Tensor) -> Tensor:
        """The frozen image encoder: [H, W, 3] uint8 -> [1, D, side / 16, side / 16] in the encoder's dtype."""
        encoder = self.sam.image_encoder
        embedding: Tensor = encoder(self.square(picture).to(encoder.pos_embed.dtype))
        return embedding

    def decode(
        self,
        embeddings: Tensor,
        image_index: Tensor,
        states: Tensor,
        points: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Masks:
        """One mask per state [N, C] on the image `image_index` [N] of `embeddings` [B, D, h, w], logits [N, side / 4, side / 4].

        points [N, P, 2] (x, y) in the square and labels [N, P] are clicks.
        """
        encoder = self.sam.prompt_encoder
        sparse = self.project(states.float()).view(len(states), self.n_tokens, -1)
        if points is not None and labels is not None:
            clicks = encoder._embed_points(points.float(), labels, pad=True)
            sparse = torch.cat([sparse, clicks.to(sparse.dtype)], dim=1)
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        masks: Masks = self.sam.mask_decoder.decode(
            embeddings[image_index].float(), encoder.get_dense_pe(), sparse, dense
        )
        return masks
