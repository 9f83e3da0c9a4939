"""Base models of any size with random weights: the large presets' classes without a download, for benchmarks and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)


@dataclass(frozen=True)
class Size:
    """Widths and depths of a base model; the defaults are those of LLaVA-Med 1.5 (Mistral 7B and CLIP ViT-L/14 at 336)."""

    vocabulary: int = 32064
    hidden: int = 4096
    mlp: int = 14336
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    vision_hidden: int = 1024
    vision_mlp: int = 4096
    vision_layers: int = 24
    vision_heads: int = 16
    image_side: int = 336
    patch: int = 14


TINY = Size(512, 64, 128, 2, 4, 2, 32, 64, 3, 2, 56, 14)
TEXTS = (
    "Outline the liver, the spleen, the left kidney and the right kidney in this abdominal CT.",
    "Which organ stores bile? The gallbladder lies under the liver. No stomach is visible here.",
)


def fresh_tokenizer(special: tuple[str, ...], end: str) -> Any:
    """Byte-level BPE, so that any text can be spelt, with these special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=[AddedToken(token, special=True) for token in special],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token=end, pad_token=end, clean_up_tokenization_spaces=False
    )


def fresh_llava(size: Size, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A LLaVA with a Mistral language model and a CLIP vision tower, and its processor."""
    tokenizer = fresh_tokenizer(("</s>", "<image>"), "</s>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=size.vision_hidden,
            intermediate_size=size.vision_mlp,
            num_hidden_layers=size.vision_layers,
            num_attention_heads=size.vision_heads,
            image_size=size.image_side,
            patch_size=size.patch,
        ),
        text_config=MistralConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.hidden,
            intermediate_size=size.mlp,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            sliding_window=None,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    square = {"height": size.image_side, "width": size.image_side}
    kind: Any = LlavaProcessor
    processor = kind(
        CLIPImageProcessor(size={"shortest_edge": size.image_side}, crop_size=square),
        tokenizer,
        patch_size=size.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return _made(LlavaForConditionalGeneration, config, device, dtype), processor


def fresh_qwen(size: Size, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A Qwen2.5-VL and its processor; `image_side` and `vision_mlp` stay the model's own business."""
    names: tuple[str, ...] = (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
    )
    names += ("<|image_pad|>", "<|video_pad|>")
    tokenizer = fresh_tokenizer(names, "<|im_end|>")
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
    half = size.hidden // size.heads // 2
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_mlp,
            "num_heads": size.vision_heads,
            "out_hidden_size": size.hidden,
            "fullatt_block_indexes": [size.vision_layers - 1],
            "patch_size": size.patch,
            "window_size": 8 * size.patch,
        },
        text_config={
            "vocab_size": size.vocabulary,
            "hidden_size": size.hidden,
            "intermediate_size": size.mlp,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [half // 4, half * 3 // 8, half - half // 4 - half * 3 // 8],
            },
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    kind: Any = Qwen2_5_VLProcessor
    processor = kind(
        Qwen2VLImageProcessor(patch_size=size.patch, min_pixels=28 * 28, max_pixels=28 * 28 * 1024),
        tokenizer,
        Qwen2VLVideoProcessor(patch_size=size.patch),
    )
    return _made(Qwen2_5_VLForConditionalGeneration, config, device, dtype), processor


def _made(kind: Any, config: Any, device: str, dtype: torch.dtype) -> Any:
    """Weights are drawn where they are going to be used: a 7B model takes seconds on a GPU."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = kind(config)
    finally:
        torch.set_default_dtype(before)
    return model.to(device, dtype).eval()
