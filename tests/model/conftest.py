"""A tiny model of the shipped classes with random weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medsegr.model.medsegr import MedSegR
from medsegr.model.presets import PRESETS
from medsegr.model.tokens import train_tokenizer

ANSWERS = [
    "The <p>liver</p> [SEG] makes bile.",
    "The <p>left kidney</p> [SEG] lies beside the spine.",
    "No spleen is visible in this abdominal CT.",
    "Visible here: <p>liver</p> [SEG] and <p>left kidney</p> [SEG].",
]


@pytest.fixture
def tiny() -> MedSegR:
    """Questions are spelt in the model's own ids, so no sentence encoder is needed."""
    torch.manual_seed(0)
    config = replace(PRESETS["tiny"], question_encoder="scratch", targets=("liver", "left kidney"))
    return MedSegR(
        config, train_tokenizer([*ANSWERS, "Where is the liver?", "Which organ makes bile?"])
    ).eval()
