"""What a label map says about one target, as plain values: box, centre, area, side, neighbours. Pure functions.

These facts, never pixels or identifiers, are what a language model is told about an image. Sides follow the radiological
convention where `frame` says so: the patient's left is on the right of the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medsegr.errors import MedSegRError

MIDDLE = (0.45, 0.55)  # centres within this share of the width or height have no side
BOTH_SHARE = 0.1  # a target on both sides has less than this share of its pixels in the middle band
NEAR = 0.1  # largest gap to a neighbour, as a share of the long side
MOST_NEIGHBOURS = 5
MIRRORED = {"left": "right", "right": "left"}
PATIENT_SIDES = {
    "CT": frozenset({"abdomen", "brain", "chest", "heart", "jaw"}),
    "MR": frozenset({"abdomen", "brain", "chest"}),
    "XR": frozenset({"abdomen", "chest", "jaw"}),
}


class Frame(StrEnum):
    """Whose left and right a side word means."""

    PATIENT = "patient"
    IMAGE = "image"


@dataclass(frozen=True)
class Neighbour:
    """Another target close by. `gap`: 0 where they touch, else the distance as a share of the image's long side;
    `direction`: where it lies, seen from the target."""

    name: str
    relation: str
    gap: float
    direction: str


@dataclass(frozen=True)
class MaskFacts:
    """One target of one image. Coordinates are shares of width and height in [0, 1], (x, y) from the upper left corner.

    `box`: x0, y0, x1, y1; `image_side`: left, right, middle or both, as seen in the image; `image_vertical`: upper, lower
    or middle; `side`: the same as `image_side` in the frame; `also_present`: every other target in the image.
    """

    name: str
    frame: Frame
    box: tuple[float, float, float, float]
    centre: tuple[float, float]
    area_share: float
    pieces: int
    image_side: str
    image_vertical: str
    neighbours: tuple[Neighbour, ...]
    part_of: tuple[str, ...]
    contains: tuple[str, ...]
    also_present: tuple[str, ...]

    @property
    def side(self) -> str:
        """left, right, middle or both: the patient's side, or the image's where the patient's is unknown."""
        return in_frame(self.image_side, self.frame)

    @property
    def quadrant(self) -> str:
        """Such as "upper left": vertical as seen in the image, the side in the frame."""
        return _joined(self.image_vertical, self.side)

    @property
    def image_quadrant(self) -> str:
        """Such as "upper right", as seen in the image."""
        return _joined(self.image_vertical, self.image_side)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values for a prompt."""
        return {
            "class": self.name,
            "box_xyxy": list(self.box),
            "centre_xy": list(self.centre),
            "area_share": self.area_share,
            "pieces": self.pieces,
            "sides_are": f"the {self.frame.value}'s",
            "side": self.side,
            "quadrant": self.quadrant,
            "quadrant_as_seen_in_the_image": self.image_quadrant,
            "neighbours": [
                {"name": n.name, "relation": n.relation, "gap": n.gap, "lies": n.direction}
                for n in self.neighbours
            ],
            "part_of": list(self.part_of),
            "contains": list(self.contains),
            "also_present": list(self.also_present),
        }


def frame_of(modality: str, region: str) -> Frame:
    """The frame of side words: the patient's where images are shown in radiological convention by habit (axial and
    frontal views), else the image's."""
    return Frame.PATIENT if region in PATIENT_SIDES.get(modality, ()) else Frame.IMAGE


def in_frame(image_side: str, frame: Frame) -> str:
    """A side as seen in the image, in the frame's words."""
    return MIRRORED.get(image_side, image_side) if frame is Frame.PATIENT else image_side


def mask_facts(
    labels: NDArray[Any],
    name: str,
    targets: Mapping[str, tuple[int, ...]],
    present: Iterable[str],
    frame: Frame,
) -> MaskFacts:
    """Facts about the target `name` of a label map.

    labels: [H, W] integers, 0 = background; targets: mask values of each target; present: targets in the image. Raises
    `MedSegRError` if the target has no pixel.
    """
    mask = np.isin(labels, targets[name])
    if mask.ndim != 2 or not mask.any():
        raise MedSegRError(
            f"The label map {list(labels.shape)} has no pixel of '{name}' (values {list(targets[name])})."
        )
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    others = tuple(other for other in present if other != name)
    mine = set(targets[name])
    box = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
    x, y = centre(mask)
    disjoint = [other for other in others if mine.isdisjoint(targets[other])]
    return MaskFacts(
        name=name,
        frame=frame,
        box=(_rounded(box[0]), _rounded(box[1]), _rounded(box[2]), _rounded(box[3])),
        centre=(_rounded(x), _rounded(y)),
        area_share=round(float(mask.mean()), 4),
        pieces=_pieces(mask),
        image_side=_image_side(columns, width, x),
        image_vertical="upper" if y < MIDDLE[0] else "lower" if y > MIDDLE[1] else "middle",
        neighbours=_neighbours(mask, {n: np.isin(labels, targets[n]) for n in disjoint}, frame),
        part_of=tuple(other for other in others if mine < set(targets[other])),
        contains=tuple(other for other in others if mine > set(targets[other])),
        also_present=others,
    )


def centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Centroid (x, y) of a mask [H, W] with at least one pixel, as shares of width and height."""
    rows, columns = np.nonzero(mask)
    return float((columns.mean() + 0.5) / mask.shape[1]), float((rows.mean() + 0.5) / mask.shape[0])


def _image_side(columns: NDArray[np.int64], width: int, x: float) -> str:
    if x < MIDDLE[0]:
        return "left"
    if x > MIDDLE[1]:
        return "right"
    places = (columns + 0.5) / width
    central = float(np.mean((places >= MIDDLE[0]) & (places <= MIDDLE[1])))
    return "both" if central < BOTH_SHARE else "middle"


def _pieces(mask: NDArray[np.bool_]) -> int:
    """Connected pieces (8-neighbourhood) of at least 5 % of the largest one."""
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    return int(np.count_nonzero(sizes >= 0.05 * sizes.max()))


def _neighbours(
    mask: NDArray[np.bool_], others: Mapping[str, NDArray[np.bool_]], frame: Frame
) -> tuple[Neighbour, ...]:
    if not others:
        return ()
    distance = ndimage.distance_transform_edt(~mask)
    here, long_side = centre(mask), max(mask.shape)
    found = []
    for name, other in others.items():
        nearest = float(distance[other].min())
        gap = 0.0 if nearest < 1.5 else _rounded((nearest - 1) / long_side)
        if gap <= NEAR:
            relation = "touches" if nearest < 1.5 else "near"
            found.append(Neighbour(name, relation, gap, _direction(here, centre(other), frame)))
    return tuple(sorted(found, key=lambda n: n.gap)[:MOST_NEIGHBOURS])


def _direction(here: tuple[float, float], there: tuple[float, float], frame: Frame) -> str:
    right, down = there[0] - here[0], there[1] - here[1]
    if abs(down) > abs(right):
        return "below it in the image" if down > 0 else "above it in the image"
    side = in_frame("right" if right > 0 else "left", frame)
    return f"to its {side} ({frame.value}'s {side})"


def _joined(vertical: str, side: str) -> str:
    if vertical == side:
        return vertical
    return f"{vertical}, both sides" if side == "both" else f"{vertical} {side}"


def _rounded(value: float) -> float:
    return round(float(value), 3)
