"""Images and label maps of a MedSeg-QA file, decoded once and kept small in memory for training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsegr.errors import QAFileError
from medsegr.imaging import Volume, read_image, to_rgb
from medsegr.imaging.resizing import resize_labels, resize_rgb
from medsegr.qa.schema import Conversation


@dataclass(frozen=True)
class Case:
    """One training image with everything asked about it.

    `rgb` [S, S, 3] uint8; `labels` [S, S] uint8 (0 = background); `mirror_x`, `mirror_y` say whether it may be mirrored left to
    right and top to bottom; `present` and `absent` are the labels that its conversations show in it, or declare absent from it
    although the set knows them.
    """

    image: str
    dataset: str
    patient_id: str
    mirror_x: bool
    mirror_y: bool
    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    conversations: tuple[Conversation, ...]
    present: frozenset[str]
    absent: frozenset[str]
    ruled_out: frozenset[str]


SIDED_WORDS = {"left", "right", "anterior", "posterior", "heart", "ventricle", "ventricular"}
FREE_ORIENTATION = {"DERM", "MICRO", "PHOTO", "FUNDUS"}


def load_cases(conversations: Iterable[Conversation], root: Path, side: int) -> list[Case]:
    """Group conversations by image and decode each image once. `root` is the folder of the QA file."""
    grouped: dict[str, list[Conversation]] = defaultdict(list)
    sided: dict[str, bool] = defaultdict(bool)
    for conversation in conversations:
        grouped[conversation.image].append(conversation)
        words = {w for turn in conversation.turns for target in turn.targets for w in target.label.split()}
        sided[conversation.dataset] |= bool(words & SIDED_WORDS)
    return [_load_case(image, group, root, side, sided[group[0].dataset]) for image, group in grouped.items()]


def _label_map(path: Path) -> NDArray[np.uint8]:
    """[H, W] of an integer label PNG; raises `QAFileError`."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except OSError as error:
        raise QAFileError(
            f"The mask {path} cannot be read ({error}); expected an integer label PNG."
        ) from error
    if values.ndim != 2 or values.min() < 0 or values.max() > 255:
        raise QAFileError(f"The mask {path} is no label map; expected one channel with values from 0 to 255.")
    return values.astype(np.uint8)


def _load_case(image: str, group: list[Conversation], root: Path, side: int, sided: bool) -> Case:
    first = group[0]
    picture = read_image(root / image, modality=first.modality)
    if isinstance(picture, Volume):
        raise QAFileError(
            f"{image} is a volume; pretraining reads 2-D images: cut it into slices with `medsegr qa build`."
        )
    masks = {target.mask for c in group for turn in c.turns for target in turn.targets}
    if len(masks) > 1:
        raise QAFileError(
            f"{image} has {len(masks)} different mask files; one label map per image is expected."
        )
    labels = _label_map(root / masks.pop()) if masks else np.zeros(picture.pixels.shape[:2], np.uint8)
    if labels.shape != picture.pixels.shape[:2]:
        raise QAFileError(
            f"{image}: mask of shape {labels.shape} on an image of shape {picture.pixels.shape[:2]}."
        )
    absent = frozenset(
        name for c in group for turn in c.turns if turn.kind == "absent_same_set" for name in turn.absent
    )
    present = frozenset(target.label for c in group for turn in c.turns for target in turn.targets)
    return Case(
        image,
        first.dataset,
        first.patient_id,
        not sided,
        not sided and first.modality in FREE_ORIENTATION,
        resize_rgb(to_rgb(picture.pixels, first.modality), side),
        resize_labels(labels, side),
        tuple(group),
        present,
        absent,
        frozenset(name for c in group for turn in c.turns for name in turn.absent),
    )
