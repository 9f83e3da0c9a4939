"""Side and position words of an answer against a mask: BLEU hardly notices a left that should be a right.

Words are turned into directions on the image. Body words follow radiological display (the patient's left is on the right of
the image) and are read only where that display can be trusted: CT, MR and X-ray of the abdomen, brain, chest and jaw. Axial
CT and MR show front and back but no height; X-rays show height but no depth. Words about "the image" follow the viewer, in
any modality.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

import numpy as np

from medsegr.evaluation.overlap import Mask
from medsegr.measured import RADIOLOGICAL, SIDED_REGIONS

MIDDLE = 0.02
"""A centroid this near to the middle line, as a share of the image's side, neither confirms nor refutes a word."""
FLAT = frozenset({"XR"})
DEEP_REGIONS = frozenset({"abdomen", "chest"})


class Direction(Enum):
    """A half of the image: the axis (0 rows, 1 columns) and the sign of the offset from its middle."""

    UP = (0, -1)
    DOWN = (0, 1)
    IMAGE_LEFT = (1, -1)
    IMAGE_RIGHT = (1, 1)

    @property
    def opposite(self) -> Direction:
        """The other half of the same axis."""
        axis, sign = self.value
        return Direction((axis, -sign))


PATIENT = {"left": Direction.IMAGE_RIGHT, "right": Direction.IMAGE_LEFT}
VIEWER = {"left": Direction.IMAGE_LEFT, "right": Direction.IMAGE_RIGHT}
HEIGHT = {"upper": Direction.UP, "top": Direction.UP, "lower": Direction.DOWN, "bottom": Direction.DOWN}
DEPTH = {"front": Direction.UP, "back": Direction.DOWN}

_WORDS = r"left|right|upper|lower|top|bottom|front|back"
_PLACE = re.compile(
    rf"\b(in|on|at|to|across|slightly)\s+(?:the\s+)?(?:patient's\s+)?"
    rf"((?:(?:{_WORDS})(?:[\s-]+|\b))+)(?:(?:of|from)\s+(?:the\s+|this\s+)?(\w+))?"
)
_WHOLE = frozenset(
    {"abdomen", "belly", "chest", "thorax", "body", "midline", "head", "brain", "skull", "jaw", "mouth"}
)
_PICTURE = frozenset({"image", "picture", "photograph", "photo", "frame", "view", "micrograph", "scan"})
_ANY_WORD = re.compile(rf"\b({_WORDS})\b")


def stated_directions(answer: str, name: str, modality: str, region: str | None) -> frozenset[Direction]:
    """Where the answer says that the structure lies, as halves of the image; opposite words cancel out.

    name: the structure that the answer points at; its own words ("left kidney", "upper right canine") are statements too.
    region: the body region of the structure in the knowledge base, None if unknown. What the answer says relative to another
    structure ("to the right of the aorta") is no statement about the image.
    """
    found = [_body(word, modality, region) for word in _ANY_WORD.findall(name.lower()) if word not in DEPTH]
    for match in _PLACE.finditer(answer.lower()):
        before, words, of = match.group(1), match.group(2).replace("-", " ").split(), match.group(3)
        if of in _PICTURE:
            found += [{**VIEWER, **HEIGHT}.get(word) for word in words]
        elif of in _WHOLE:
            found += [_body(word, modality, region) for word in words]
        elif of is None and before != "to":
            found += [_body(word, modality, region) for word in words if word not in DEPTH]
    stated = {direction for direction in found if direction is not None}
    return frozenset(direction for direction in stated if direction.opposite not in stated)


def _body(word: str, modality: str, region: str | None) -> Direction | None:
    """A word about the body as a direction on the image, None where the image does not show it."""
    if modality not in RADIOLOGICAL or region not in SIDED_REGIONS:
        return None
    if word in PATIENT:
        return PATIENT[word]
    if word in HEIGHT:
        return HEIGHT[word] if modality in FLAT else None
    return DEPTH.get(word) if modality not in FLAT and region in DEEP_REGIONS else None


def share_confirmed(directions: Iterable[Direction], mask: Mask) -> float | None:
    """Share of `directions` in whose half of the image the centroid of `mask` [H, W] lies; None for an empty mask, or
    where no direction can be judged."""
    if not mask.any():
        return None
    offsets = [
        float(np.mean(index)) / (side - 1) - 0.5 if side > 1 else 0.0
        for index, side in zip(np.nonzero(mask), mask.shape, strict=True)
    ]
    judged = [
        offsets[axis] * sign > 0
        for axis, sign in (direction.value for direction in directions)
        if abs(offsets[axis]) > MIDDLE
    ]
    return float(np.mean(judged)) if judged else None
