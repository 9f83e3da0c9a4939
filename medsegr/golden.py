"""The golden question: an image, a question and the mask that a checkpoint gave when it was made.

`medsegr doctor` asks it again; a mask that differs says that weights, libraries or hardware do not do what they did.
In the checkpoint directory: `golden.json` {"image", "question", "label", "mask", "min_dice"} and the two PNG files it names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsegr.errors import CheckpointError, ImageError
from medsegr.evaluation.metrics import dice
from medsegr.imaging import Picture, read_image
from medsegr.predictor import Predictor

GOLDEN = "golden.json"
MIN_DICE = 0.9


@dataclass(frozen=True, eq=False)
class Golden:
    """image: uint8 [H, W] or [H, W, 3]; mask: bool [H, W], what the finding `label` of the answer has to match."""

    image: Picture
    question: str
    label: str
    mask: NDArray[np.bool_]
    min_dice: float = MIN_DICE


def read_golden(directory: Path) -> Golden | None:
    """The golden question of a checkpoint, or None where it brings none. Raises `CheckpointError` if it is damaged."""
    path = directory / GOLDEN
    if not path.is_file():
        return None
    try:
        case = json.loads(path.read_text(encoding="utf-8"))
        image = _picture(directory / case["image"])
        mask = _picture(directory / case["mask"]).pixels > 0
        golden = Golden(image, str(case["question"]), str(case["label"]), mask, float(case["min_dice"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"The golden question in {directory} cannot be read ({error}); copy the checkpoint anew."
        ) from error
    if golden.mask.shape != golden.image.pixels.shape[:2]:
        raise CheckpointError(
            f"The golden question in {directory} has a mask of another size than its image; copy the checkpoint anew."
        )
    return golden


def ask_golden(predictor: Predictor, golden: Golden) -> float:
    """Dice of the predictor's mask for the golden finding against the stored one; 0 when it does not find it."""
    predictor.set_image(golden.image)
    found = [f.mask for f in predictor.ask(golden.question).findings if f.label == golden.label]
    return max((dice(mask, golden.mask) for mask in found), default=0.0)


def write_golden(directory: Path, predictor: Predictor, pixels: NDArray[np.uint8], question: str) -> Golden:
    """Ask `question` about `pixels` and keep the first finding's mask; raises `CheckpointError` if nothing is found."""
    predictor.set_image(Picture(pixels=pixels, modality=None, spacing_mm=None))
    reply = predictor.ask(question)
    if not reply.findings:
        raise CheckpointError(
            "The golden question found nothing, so there is no mask to keep; ask for a structure that the image shows."
        )
    found = reply.findings[0]
    Image.fromarray(pixels).save(directory / "golden-image.png", optimize=True)
    Image.fromarray(found.mask.astype(np.uint8) * np.uint8(255)).save(directory / "golden.png", optimize=True)
    case = {
        "image": "golden-image.png", "question": question, "label": found.label, "mask": "golden.png", "min_dice": MIN_DICE,
    }  # fmt: skip
    (directory / GOLDEN).write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8")
    golden = read_golden(directory)
    assert golden is not None
    return golden


def _picture(path: Path) -> Picture:
    image = read_image(path)
    if not isinstance(image, Picture):
        raise ImageError(f"{path.name} is not a picture")
    return image
