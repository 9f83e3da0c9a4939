"""Directories with tiny random weights of the large presets' own classes, and a toy MedSeg-QA file to train them on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medsegr.model.large.fresh import TINY, fresh_llava, fresh_qwen
from medsegr.model.large.grounding import build_sam
from medsegr.model.large.presets import LARGE_PRESETS, LargeConfig, SamKind
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Conversation, Target, Turn

PRESETS = ("llava-med-7b", "qwen2.5-vl-7b")


def tiny_sam(folder: Path, pixels: str = "sam") -> SamKind:
    """Write a SAM of 128 x 128 pixels as an original .pth state dict; its shape."""
    kind = SamKind(
        str(folder / "sam_tiny"), "https://example.org/sam_tiny.pth", 32, 2, 2, (1,), pixels,
        side=128, window=4, prompt_dim=32, decoder_heads=2, decoder_mlp_dim=64,
    )  # fmt: skip
    torch.manual_seed(2)
    state = {k: v for k, v in build_sam(kind).state_dict().items() if "_head." not in k or "iou_" in k}
    torch.save(state, folder / "sam_tiny.pth")
    return kind


def tiny_large(folder: Path, preset: str = "llava-med-7b", pixels: str = "sam") -> LargeConfig:
    """Write base model and SAM into `folder`; the preset's configuration that finds them there."""
    torch.manual_seed(1)
    model, processor = (fresh_qwen if preset.startswith("qwen") else fresh_llava)(TINY)
    with (
        torch.no_grad()
    ):  # as peaked as trained weights: a frozen head of tiny ones could not say anything surely
        model.lm_head.weight.mul_(15)
        model.get_input_embeddings().weight.mul_(15)
    model.save_pretrained(folder / preset)
    processor.save_pretrained(folder / preset)
    side = 112 if preset.startswith("qwen") else 0
    return replace(
        LARGE_PRESETS[preset],
        base=str(folder / preset),
        sam=tiny_sam(folder, pixels),
        context_side=side,
        lora_targets=r".*language_model.*_proj",
        lora_rank=16,
        lora_alpha=32,
        lora_dropout=0.0,
        max_new_tokens=40,
    )


def toy_qa(folder: Path) -> Path:
    """Two images of 48 x 64 pixels: a liver on the left of one, a darker spleen on the right of the other."""
    conversations = []
    for n, label in enumerate(("liver", "spleen")):
        labels = np.zeros((48, 64), np.uint8)
        labels[8:40, 4 + 28 * n : 32 + 28 * n] = n + 1
        pixels = np.array([0, 255, 110], np.uint8)[labels]
        pixels[0, 0] = 255  # the range of grey values is that of a stack of both
        Image.fromarray(pixels).save(folder / f"i{n}.png")
        Image.fromarray(labels).save(folder / f"m{n}.png")
        target = Target(label, label, f"m{n}.png", (n + 1,))
        absent = ("spleen", "liver")[n]
        turns = (
            Turn("What is here?", f"The <p>{label}</p> [SEG].", (target,)),
            Turn(f"And the {absent}?", f"No {absent}.", (), "absent_same_set", None, (absent,)),
        )
        conversations.append(
            Conversation(f"c{n}", f"i{n}.png", "PHOTO", "toy", f"p{n}", "train", turns, "CC0", "permissive")
        )
    write_qa(folder / "qa.jsonl", conversations)
    return folder / "qa.jsonl"
