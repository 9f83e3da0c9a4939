"""A predictor whose masks are known, and a folder of images and conversations to ask it about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medsegr.evaluation.case import Case
from medsegr.evaluation.harness import answered
from medsegr.evaluation.scoring import Scored, Scorer
from medsegr.imaging import Picture
from medsegr.predictor import Finding, Reply
from medsegr.qa.facts import KnowledgeBase, load_knowledge
from medsegr.qa.schema import Conversation, Target, Turn

SIZE = (10, 20)
LIVER, SPLEEN, KIDNEY = (slice(0, 5), slice(0, 8)), (slice(0, 5), slice(10, 18)), (slice(6, 10), slice(0, 8))
PLACES = {"liver": LIVER, "spleen": SPLEEN, "kidney": KIDNEY}
VALUES = {"liver": 1, "spleen": 2, "kidney": 3}
IMAGES = (*(f"i{n}" for n in range(6)), "s0")


@lru_cache(maxsize=1)
def knowledge() -> KnowledgeBase:
    """The shipped knowledge base, read once."""
    return load_knowledge()


def mask(*names: str) -> np.ndarray:
    """[10, 20] bool: the union of structures."""
    found = np.zeros(SIZE, bool)
    for name in names:
        found[PLACES[name]] = True
    return found


class Killed(Exception):
    """Stands in for the end of the process."""


class Known:
    """Finds what the question names before the bar, under the names after it: "liver|spleen" outlines the liver as spleen. In a
    sentence, finds the structures that it names.

    `dies_at`: the number of the question, from 1, that is never answered.
    """

    version = "known-1"
    scales: tuple[float, ...] = (1.0,)
    config = "tiny"

    def __init__(self, dies_at: int | None = None) -> None:
        self.images: list[tuple[int, str | None]] = []
        self.histories: list[list[tuple[str, str]]] = []
        self.dies_at = dies_at
        self.meta: dict[str, Any] = {"sha256": {"weights": "abc"}}

    def set_image(self, image: Picture, modality: str | None = None) -> None:
        """Remember the image by its lower right pixel: the number of the image."""
        self.images.append((int(image.pixels[-1, -1]), modality))

    def ask(self, question: str, history: Any = ()) -> Reply:
        """Answer by the rule above."""
        if len(self.histories) + 1 == self.dies_at:
            raise Killed
        self.histories.append(list(history))
        drawn, _, said = question.partition("|")
        names = [name for name in drawn.split("+") if name]
        labels = said.split("+") if said else names
        if not set(names) <= set(PLACES):  # a sentence
            names = labels = [name for name in PLACES if name in question]
        found = tuple(Finding(label, label, mask(n), 0.8) for label, n in zip(labels, names, strict=True))
        return Reply(f"Answer to {question}.", found, {})


def conversation(image: str, *turns: tuple[str, str, str], dataset: str = "big", **more: Any) -> Conversation:
    """turns: (question, truly shown names joined by "+", kind)."""
    made = tuple(
        Turn(q, "…", tuple(_target(n, image) for n in shown.split("+") if n), kind, None, () if shown else ("spleen",))
        for q, shown, kind in turns
    )  # fmt: skip
    return Conversation(f"{image}-{turns}", f"{image}.png", "CT", dataset, image, "val", made, **more)


def _target(name: str, image: str) -> Target:
    return Target(name, name, f"{image}-mask.png", (VALUES[name],))


def write_images(folder: Path) -> None:
    """Every image shows all three structures; its last pixel holds its number."""
    labels = np.zeros(SIZE, np.uint8)
    for name, value in VALUES.items():
        labels[PLACES[name]] = value
    for number, image in enumerate(IMAGES):
        Image.fromarray(labels).save(folder / f"{image}-mask.png")
        pixels = labels * 50
        pixels[-1, -1] = number
        Image.fromarray(pixels).save(folder / f"{image}.png")


def scored(
    root: Path, conversations: Sequence[Conversation], known: Known | None = None, **more: Any
) -> list[Scored]:
    """Everything that the harness yields, in one list."""
    scorer = Scorer(knowledge())
    done = answered(known or Known(), conversations, root, scorer, **more)  # type: ignore[arg-type]
    return [one for each in done for one in each]


def answer(root: Path, *conversations: Conversation) -> list[Case]:
    """The cases of some conversations."""
    return [one.case for one in scored(root, conversations)]
