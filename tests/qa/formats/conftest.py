"""A MedSeg-QA file drawn by hand: two CT pictures whose pixels can be counted, with a hole, an overlap and a part to ignore."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medsegr.qa.formats.labels import target_mask
from medsegr.qa.reader import read_qa, write_qa
from medsegr.qa.schema import Conversation, Target, Turn

Masks = dict[tuple[str, str, str], NDArray[np.bool_]]
"""(image's stem, question, label) to the target's pixels."""

LIVER = Target("liver", "liver", "masks/a.png", (1,))
KIDNEYS = Target("kidneys", "kidneys", "masks/a.png", (2, 3))


def label_map() -> NDArray[np.uint8]:
    """[12, 16]: a liver 1 with a hole, kidneys 2 and 3, two pixels of liver that touch at a corner, 255 to ignore."""
    labels = np.zeros((12, 16), np.uint8)
    labels[1:7, 1:8] = 1
    labels[3:5, 3:6] = 0
    labels[8, 1], labels[9, 2] = 1, 1
    labels[1:4, 10:13], labels[6:9, 10:12] = 2, 3
    labels[10:12, 12:16] = 255
    return labels


@pytest.fixture
def dicom_dir() -> Path:
    """The public DICOM files; skips without them."""
    folder = Path(os.environ.get("MEDSEGR_DATA") or Path(__file__).parents[4] / "shared" / "data") / "dicom"
    if not folder.is_dir():
        pytest.skip(f"no public images in {folder}; name their folder with MEDSEGR_DATA")
    return folder


@pytest.fixture
def qa_file(tmp_path: Path) -> Path:
    """Three conversations: two wordings about the liver (one followed by a question about the kidneys), one about the kidneys."""
    root = tmp_path / "qa"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    Image.fromarray(label_map() // 2 + 40).save(root / "images" / "a.png")
    Image.fromarray(label_map()).save(root / "masks" / "a.png")
    bile = Turn(
        "Which organ here makes bile?",
        "The <p>liver</p> [SEG] makes bile.",
        (LIVER,),
        "implicit",
        "liver.function.1",
    )
    detox = Turn(
        "Show the one that breaks down alcohol.", "The <p>liver</p> [SEG] does it.", (LIVER,), "implicit"
    )
    pair = Turn("Outline the kidneys.", "The <p>kidneys</p> [SEG] lie behind.", (KIDNEYS,), "explicit")
    conversations = [
        Conversation(f"c{n}", "images/a.png", "CT", "toy", "p1", "train", turns, "CC0", "permissive")
        for n, turns in enumerate([(bile, pair), (detox,), (pair,)])
    ]
    write_qa(root / "qa.jsonl", conversations)
    return root / "qa.jsonl"


@pytest.fixture
def masks_of() -> Callable[[Path], Masks]:
    """The masks of every question of a file."""

    def read(path: Path) -> Masks:
        return {
            (Path(c.image).stem, turn.question, target.label): target_mask(path.parent, target, str(path))
            for c in read_qa(path)
            for turn in c.turns
            for target in turn.targets
        }

    return read


@pytest.fixture
def drawn() -> dict[str, NDArray[np.bool_]]:
    """What the file shows, by label."""
    labels = label_map()
    return {"liver": labels == 1, "kidneys": (labels == 2) | (labels == 3), "ignore": labels == 255}


@pytest.fixture
def as_lines() -> Callable[[Path, list[object]], Path]:
    """Write objects as JSON Lines."""

    def write(path: Path, rows: list[object]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
