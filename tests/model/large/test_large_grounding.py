"""SAM as `segment_anything` has it: same names, same shapes, same numbers; what is added is only added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import MaskDecoder, TwoWayTransformer

from medsegr.model.large.adapter import new_large
from medsegr.model.large.grounding import SamGrounding, build_sam
from medsegr.model.large.presets import LARGE_PRESETS, SAMS
from tests.large_models import tiny_large, tiny_sam


@pytest.mark.parametrize(("ours", "theirs"), [("vit_h", "vit_h"), ("vit_b", "vit_b"), ("medsam", "vit_b")])
def test_original_state_dicts_fit(ours: str, theirs: str) -> None:
    with torch.device("meta"):
        expected = {k: v.shape for k, v in sam_model_registry[theirs]().state_dict().items()}
        built = {k: v.shape for k, v in build_sam(SAMS[ours]).state_dict().items()}
    added = {k for k in built if k.startswith(("mask_decoder.presence_head", "mask_decoder.quality_head"))}
    assert {k: v for k, v in built.items() if k not in added} == expected and len(added) == 8


def test_decoder_gives_the_mask_of_sams_own_decoder(tmp_path: Path) -> None:
    kind = tiny_sam(tmp_path)
    sam = build_sam(kind).eval()
    own = MaskDecoder(
        transformer_dim=32,
        transformer=TwoWayTransformer(depth=2, embedding_dim=32, num_heads=2, mlp_dim=64),
        iou_head_hidden_dim=32,
    ).eval()
    own.load_state_dict(sam.mask_decoder.state_dict(), strict=False)
    points, labels = torch.tensor([[[30.0, 40.0]], [[90.0, 20.0]]]), torch.ones(2, 1)
    sparse, dense = sam.prompt_encoder(points=(points, labels), boxes=None, masks=None)
    embedding, position = torch.randn(1, 32, 8, 8), sam.prompt_encoder.get_dense_pe()
    with torch.inference_mode():
        expected, _ = own(embedding, position, sparse, dense, multimask_output=False)
        found = sam.mask_decoder.decode(embedding.expand(2, -1, -1, -1), position, sparse, dense)
    torch.testing.assert_close(found.logits, expected[:, 0])
    assert found.quality.shape == found.presence.shape == (2,)


def test_pixels_are_prepared_as_the_weights_expect(tmp_path: Path) -> None:
    config = replace(LARGE_PRESETS["llava-med-7b"], sam=tiny_sam(tmp_path))
    picture = torch.full((30, 60, 3), 200, dtype=torch.uint8)
    picture[:, :30] = 40
    sam = SamGrounding(config, 8)
    square = sam.square(picture)
    assert sam.filled(30, 60) == (64, 128) and square.shape == (1, 3, 128, 128)
    assert float(square[0, 0, 10, 10]) == pytest.approx((40 - 123.675) / 58.395)
    assert not bool(square[:, :, 64:].any()), "zeros fill the square below the picture"
    med = SamGrounding(replace(config, sam=replace(config.sam, pixels="medsam")), 8)
    square = med.square(picture)
    assert med.filled(30, 60) == (128, 128)
    assert float(square.min()) == 0.0 and float(square.max()) == 1.0
    assert float(square[0, 0, 120, 20]) < 0.02 and float(square[0, 0, 120, 100]) > 0.98


@torch.inference_mode()
def test_masks_come_without_the_padding_and_clicks_land_where_they_were_given(tmp_path: Path) -> None:
    model = new_large(tiny_large(tmp_path))
    states = torch.randn(20, model.context.hidden_size)
    picture = torch.randint(0, 255, (30, 60, 3), dtype=torch.uint8)
    features = model.encode_picture(picture)
    masks = model.decode_masks(features, states)
    assert masks.logits.shape == (20, 64, 128) and masks.quality.shape == (20,)
    # a click at row 15 of 30, column 45 of 60 is given as (96, 64) in a stretched square and lies at (96, 32) in SAM's
    clicked = model.decode_masks(features, states[:1], torch.tensor([[96.0, 64.0]]), torch.ones(1))
    there = model.grounding.decode(
        features.embedding, torch.zeros(1, dtype=torch.long), states[:1], torch.tensor([[[96.0, 32.0]]]), torch.ones(1, 1)
    )  # fmt: skip
    assert float(clicked.quality) == pytest.approx(float(there.quality), abs=1e-6)
    assert float(clicked.quality) != pytest.approx(float(masks.quality[0]), abs=1e-6)
