"""The questions that every baseline is asked, explicit ones about one structure, and what each of them scored.

A baseline that reads questions answers freely; one that reads none is told the name of the structure in the question's place.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from rich.progress import track
from torch.nn import functional as F

from medsegr.errors import MedSegRError
from medsegr.evaluation.overlap import Mask, dice
from medsegr.evaluation.truth import Scene
from medsegr.files import write_whole
from medsegr.imaging import Picture, to_rgb
from medsegr.imaging.resizing import resize_rgb
from medsegr.model.encoder import ImageFeatures
from medsegr.model.medsegr import MedSegR
from medsegr.predictor import Predictor
from medsegr.qa.schema import Conversation

SMALL_SET = 5
"""Sets with fewer images than this are no part of a mean."""


class Outlines(Protocol):
    """What a row of the table is: something that outlines."""

    def set_image(self, picture: Picture, modality: str) -> None:
        """The image that the next questions are about."""

    def draw(self, question: str, target: str) -> Mask:
        """[H, W] bool on the image's grid; `target` is the name of the structure that the question is about."""


class AnsweredOutlines:
    """A model that reads the question and never sees the target's name: the union of what it outlines in its free answer, at one
    input scale."""

    def __init__(self, predictor: Predictor) -> None:
        predictor.scales = (1.0,)
        self.predictor = predictor
        self._size = (1, 1)

    def set_image(self, picture: Picture, modality: str) -> None:
        """See `Outlines`."""
        self._size = picture.pixels.shape[0], picture.pixels.shape[1]
        self.predictor.set_image(picture, modality)

    def draw(self, question: str, target: str) -> Mask:
        """See `Outlines`."""
        findings = self.predictor.ask(question).findings
        union: Mask = np.any([np.zeros(self._size, dtype=bool), *(f.mask for f in findings)], axis=0)
        return union


class PromptedOutlines:
    """The mask decoder of a model, prompted by the structure's name as in the vision stage; no word is read or written."""

    def __init__(self, model: MedSegR) -> None:
        self.model = model.eval()
        self._number = {name: i for i, name in enumerate(model.config.targets)}
        self._features: ImageFeatures | None = None
        self._size = (1, 1)

    def set_image(self, picture: Picture, modality: str) -> None:
        """See `Outlines`."""
        rgb = to_rgb(picture.pixels, modality, picture.body_part)
        self._size = rgb.shape[0], rgb.shape[1]
        small = resize_rgb(rgb, self.model.config.image_size)
        self._features = self.model.encode_image(torch.from_numpy(small).unsqueeze(0))

    @torch.inference_mode()
    def draw(self, question: str, target: str) -> Mask:
        """See `Outlines`; nothing for a structure that the model does not know."""
        if self._features is None or target not in self._number:
            return np.zeros(self._size, dtype=bool)
        grounding = self.model.grounding
        masks = grounding.decode(
            self._features,
            torch.zeros(1, dtype=torch.long),
            grounding.names(torch.tensor([self._number[target]])),
            torch.zeros(1, 1, 2),
            -torch.ones(1, 1),
        )
        full = F.interpolate(masks.logits[None], size=self._size, mode="bilinear", align_corners=False)
        drawn: Mask = full[0, 0].numpy() > 0
        return drawn


@dataclass(frozen=True)
class Answer:
    """One question's score. `image` is the path of the picture, `question` the id of the conversation."""

    question: str
    dataset: str
    patient: str
    image: str
    target: str
    dice: float


def chosen(conversations: Iterable[Conversation], every: int) -> list[Conversation]:
    """The explicit questions about each `every`-th image of a set, image by image; of a set that would keep fewer than
    `SMALL_SET` images, as many as make that number, or all. Raises `MedSegRError` if none is left."""
    if every < 1:
        raise MedSegRError(f"every is {every}; expected 1 or more.")
    explicit = [c for c in conversations if c.turns[0].kind == "explicit"]
    images: dict[str, dict[str, None]] = defaultdict(dict)
    for c in explicit:
        images[c.dataset].setdefault(c.image)
    kept: set[tuple[str, str]] = set()
    for name, found in images.items():
        step = min(every, max(1, len(found) // SMALL_SET))
        kept |= {(name, image) for image in sorted(found)[::step]}
    questions = [c for c in explicit if (c.dataset, c.image) in kept]
    if not questions:
        raise MedSegRError("There is no explicit question about any of the images; expected at least one.")
    return sorted(questions, key=lambda c: (c.dataset, c.image, c.id))


def ask(
    outlines: Outlines, conversations: Sequence[Conversation], root: Path, label: str = ""
) -> list[Answer]:
    """Score the first question of each conversation; those about one image should follow each other. root: the folder that paths
    are relative to; label: what the progress bar says."""
    answers: list[Answer] = []
    scene: Scene | None = None
    current = ""
    for c in track(conversations, description=label):
        if scene is None or c.image != current:
            scene, current = Scene(c, root), c.image
            outlines.set_image(scene.picture, c.modality)
        turn = c.turns[0]
        (target,) = turn.targets
        value = dice(outlines.draw(turn.question, target.label), scene.mask(target))
        answers.append(Answer(c.id, c.dataset, c.patient_id, c.image, target.label, value))
    return answers


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """JSON Lines, the file whole or not there."""
    write_whole(path, "".join(json.dumps(asdict(answer)) + "\n" for answer in answers))


def read_answers(path: Path) -> list[Answer]:
    """Inverse of `write_answers`; raises `MedSegRError`."""
    try:
        return [Answer(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise MedSegRError(
            f"{path} holds no answers that can be read ({error}); remove it to ask anew."
        ) from error
