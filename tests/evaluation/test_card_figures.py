"""Figures of an evaluation in a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medsegr.errors import MedSegRError
from medsegr.evaluation.card_figures import BEGIN, add_figures

KIND = {
    "dice": 0.7,
    "dice_low": 0.6,
    "dice_high": 0.8,
    "named_right": 0.9,
    "chose_target": 0.8,
    "t_acc": 0.97,
}
METRICS: dict[str, Any] = {
    "checkpoint": "toy-1",
    "split": "val",
    "questions": 30,
    "patients": 6,
    "images": {"toy": 9},
    "explicit": KIND,
    "implicit": {**KIND, "dice": 0.5},
    "n_acc_same_set": 0.4,
    "n_acc_elsewhere": None,
    "calibration": {
        "ece": 0.05,
        "bins": [{"low": 0.0, "high": 0.1, "n": 3, "confidence": 0.05, "accuracy": 0.0}],
    },
    "by_target": {
        "liver": {
            "images": 9,
            "figures": {
                "dice_explicit": {"value": 0.812, "low": 0.7, "high": 0.9},
                "dice_implicit": {"value": 0.4, "low": None, "high": None},
            },
        }
    },
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A directory with a card and a meta.json."""
    folder = tmp_path / "ck"
    folder.mkdir()
    (folder / "card.md").write_text("# Card\n\nText.\n")
    (folder / "meta.json").write_text(json.dumps({"version": "toy-1", "data": {"images": {"toy": 9}}}))
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    data = tmp_path / "data" / "toy"
    data.mkdir(parents=True)
    (data / "dataset.json").write_text(json.dumps({"original": "Toy set", "citation": "Toy et al. 2020"}))
    return folder


def test_figures_and_citations_stand_in_the_card_once(checkpoint: Path) -> None:
    root = checkpoint.parent
    for _ in range(2):
        add_figures(checkpoint, root / "metrics.json", root / "data")
    card = (checkpoint / "card.md").read_text()
    assert card.startswith("# Card\n\nText.\n") and card.count(BEGIN) == 1
    assert "| liver | 9 | 0.81 [0.70, 0.90] | 0.40 |" in card
    assert "| mean Dice (targets, then sets) | 0.700 [0.600, 0.800] | 0.500 [0.600, 0.800] |" in card
    assert "not asked of another body region, 0.400 of the same set" in card
    assert "| toy | Toy set | Toy et al. 2020 |" in card


def test_figures_of_another_checkpoint_are_refused(checkpoint: Path) -> None:
    (checkpoint.parent / "metrics.json").write_text(json.dumps({**METRICS, "checkpoint": "toy-2"}))
    with pytest.raises(MedSegRError, match="figures of toy-2; those of toy-1 are expected"):
        add_figures(checkpoint, checkpoint.parent / "metrics.json")
