"""Images and label maps of a MedSeg-QA file, decoded once and kept small in memory for training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
    right and top to bottom, `turn` whether it may be turned by quarters; `present` and `absent` are the labels that its
    conversations show in it, or declare absent from it although the set knows them. `values` are the label values of every
    target of the set; where `exhaustive`, a target without pixels is absent. `swap` [256] renumbers the labels of a mirrored
    image whose left and right are alike (None: no such image).
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
    values: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    exhaustive: bool = False
    swap: NDArray[np.uint8] | None = None
    turn: bool = False


SIDED_WORDS = {"left", "right", "anterior", "posterior", "heart", "ventricle", "ventricular"}
FREE_ORIENTATION = {"DERM", "MICRO", "PHOTO", "FUNDUS"}
MANY_PLANES = {"MR", *FREE_ORIENTATION}
"""Modalities whose images come in any plane and sense; their structures are told by shape and neighbours, not by image side."""


def load_cases(conversations: Iterable[Conversation], root: Path, side: int) -> list[Case]:
    """Group conversations by image and decode each image once. `root` is the folder of the QA file."""
    grouped: dict[str, list[Conversation]] = defaultdict(list)
    sets: dict[str, LabelTable] = defaultdict(LabelTable)
    for conversation in conversations:
        grouped[conversation.image].append(conversation)
        sets[conversation.dataset].add(conversation)
    return [_load_case(image, group, root, side, sets[group[0].dataset]) for image, group in grouped.items()]


class LabelTable:
    """What the conversations tell about one set: the values of its targets, and whether its labels are exhaustive (it declares
    one of its own targets absent somewhere)."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[int, ...]] = {}
        self.declared: set[str] = set()

    def add(self, conversation: Conversation) -> None:
        """Take note of one conversation."""
        for turn in conversation.turns:
            self.values.update({target.label: target.value for target in turn.targets})
            if turn.kind == "absent_same_set":
                self.declared.update(turn.absent)

    @property
    def exhaustive(self) -> bool:
        """Whether an unlabelled target is absent."""
        return bool(self.declared & set(self.values))

    @property
    def sided(self) -> bool:
        """Whether left and right carry meaning."""
        return bool({w for name in self.values for w in name.split()} & SIDED_WORDS)

    def swap(self) -> NDArray[np.uint8] | None:
        """[256] values after mirroring, where every sided target has a twin on the other side (teeth, not the kidneys beside a
        liver); None where mirroring is no such thing."""
        table = np.arange(256, dtype=np.uint8)
        for name, values in self.values.items():
            words = name.split()
            if not {"left", "right"} & set(words):
                continue
            twin = " ".join({"left": "right", "right": "left"}.get(w, w) for w in words)
            if len(values) != 1:
                continue
            if len(self.values.get(twin, ())) != 1:
                return None
            table[values[0]] = self.values[twin][0]
        moved = {v for v in range(256) if table[v] != v}
        leaves = {v for values in self.values.values() for v in values}
        return table if moved and moved == leaves else None


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


def _load_case(image: str, group: list[Conversation], root: Path, side: int, table: LabelTable) -> Case:
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
        not table.sided,
        not table.sided and first.modality in FREE_ORIENTATION,
        resize_rgb(to_rgb(picture.pixels, first.modality), side),
        resize_labels(labels, side),
        tuple(group),
        present,
        absent,
        table.values,
        table.exhaustive,
        table.swap(),
        first.modality in MANY_PLANES,
    )
