"""A labelled folder small enough to know by heart: an exhaustive abdominal CT, an unexhaustive brain MR, a normal breast."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medsegr.qa.facts import KnowledgeBase, load_knowledge

SIDE = 32


def write_set(
    folder: Path, masks: Mapping[str, tuple[str, str, Mapping[int, int]]], **described: Any
) -> Path:
    """A labelled set. `masks`: stem to (patient, split, {value: pixels}); pixels are laid out row by row."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for stem, (_, _, pixels) in masks.items():
        flat = np.zeros(SIDE * SIDE, np.uint8)
        start = 0
        for value, number in pixels.items():
            flat[start : start + number] = value
            start += number
        Image.fromarray(flat.reshape(SIDE, SIDE)).save(folder / "masks" / f"{stem}.png")
        Image.fromarray(np.full((SIDE, SIDE), 90, np.uint8)).save(folder / "images" / f"{stem}.png")
    record = {
        "name": folder.name,
        "labels_are_exhaustive": True,
        "licence": "CC0",
        "licence_class": "permissive",
        "images": {stem: {"patient_id": p, "split": s} for stem, (p, s, _) in masks.items()},
        **described,
    }
    (folder / "dataset.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def make_set() -> Callable[..., Path]:
    return write_set


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Three sets. Abdomen: right kidney 2, left kidney 3, liver 6, spleen 1; 'edge' shows 11 pixels of the liver."""
    data = tmp_path / "data"
    write_set(
        data / "abdomen_ct",
        {
            "full": ("A1", "train", {1: 40, 2: 30, 3: 30, 6: 200}),
            "one_kidney": ("A2", "train", {2: 30, 6: 100}),
            "edge": ("A3", "train", {1: 12, 6: 11}),
            "seen": ("A4", "val", {1: 40, 2: 30, 3: 30}),
        },
        modality="CT",
        region="abdomen",
        targets={"spleen": [1], "right kidney": [2], "left kidney": [3], "kidneys": [2, 3], "liver": [6]},
    )
    write_set(
        data / "brain_mr",
        {
            "drawn": ("B1", "train", {1: 50, 2: 50}),
            "bare": ("B2", "train", {}),
            "held": ("B3", "val", {2: 50}),
        },
        modality="MR",
        region="brain",
        targets={"anterior hippocampus": [1], "posterior hippocampus": [2], "hippocampus": [1, 2]},
        labels_are_exhaustive=False,
        licence="CC BY-NC-SA 4.0",
        licence_class="noncommercial",
    )
    write_set(
        data / "breast_normal",
        {"n1": ("C1", "train", {}), "n2": ("C2", "val", {})},
        modality="US",
        region="breast",
        targets={},
        absent=["breast tumour"],
    )
    return data


@pytest.fixture(scope="session")
def knowledge() -> KnowledgeBase:
    return load_knowledge()
