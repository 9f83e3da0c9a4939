"""What all tests share."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from medsegr.model.medsegr import MedSegR

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = [
    "The <p>liver</p> [SEG] makes bile.",
    "The <p>left kidney</p> [SEG] lies beside the spine.",
    "No spleen is visible in this abdominal CT.",
    "Visible here: <p>liver</p> [SEG] and <p>left kidney</p> [SEG].",
]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of public images: MEDSEGR_DATA, or ../shared/data beside the repository; skips where there is none."""
    folder = Path(os.environ.get("MEDSEGR_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no public images in {folder}; name their folder with MEDSEGR_DATA")
    return folder


@pytest.fixture
def tiny() -> MedSegR:
    """A tiny model of the shipped classes with random weights.

    Questions are spelt in the model's own ids, so no sentence encoder is needed.
    """
    import torch

    from medsegr.model.medsegr import MedSegR
    from medsegr.model.presets import PRESETS
    from medsegr.model.tokens import train_tokenizer

    torch.manual_seed(0)
    config = replace(PRESETS["tiny"], question_encoder="scratch", targets=("liver", "left kidney"))
    tokenizer = train_tokenizer([*ANSWERS, "Where is the liver?", "Which organ makes bile?"])
    return MedSegR(config, tokenizer).eval()
