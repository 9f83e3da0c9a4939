"""Best, median and worst answer of every set, as small pictures with the true and the drawn outline."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medsegr.evaluation.case import Case
from medsegr.evaluation.overlap import Mask
from medsegr.evaluation.truth import Scene
from medsegr.imaging import COLOURS, overlay, to_rgb
from medsegr.imaging.overlays import outline
from medsegr.qa.schema import Conversation

SIDE = 320
"""Longer side of a picture in the report, in pixels."""
LINES = ("truth", "drawn", "both")
"""What the first colours of `COLOURS` stand for."""
RANKS = ("best", "median", "worst")


@dataclass(frozen=True)
class Example:
    """A case with its picture as a data URI (JPEG)."""

    rank: str
    case: Case
    picture: str


def choose(cases: Sequence[Case]) -> list[tuple[str, Case]]:
    """Best, median and worst by Dice among the questions about one present structure, each case once; equal ones in their
    order."""
    ranked = sorted((c for c in cases if c.expected == 1 and c.wording == 1), key=lambda c: -c.dice)
    places = dict.fromkeys((0, len(ranked) // 2, len(ranked) - 1)) if ranked else {}
    names = RANKS if len(places) == len(RANKS) else RANKS[:: len(RANKS) - 1]
    return list(zip(names, (ranked[place] for place in places), strict=False))


def examples(
    cases: Sequence[Case], conversations: Sequence[Conversation], root: Path, out: Path
) -> dict[str, list[Example]]:
    """The examples of each set, by its name. `root`: where images are; `out`: where drawn masks are."""
    by_id = {" ".join(c.id.split()): c for c in conversations}
    sets: dict[str, list[Case]] = {}
    for case in cases:
        sets.setdefault(case.dataset, []).append(case)
    return {
        name: [
            Example(rank, case, _picture(case, by_id[case.conversation], root, out)) for rank, case in chosen
        ]
        for name, rows in sorted(sets.items())
        if (chosen := choose(rows))
    }


def draw(rgb: NDArray[np.uint8], truth: Mask, drawn: Mask) -> NDArray[np.uint8]:
    """`rgb` [H, W, 3] at report size with both outlines, two pixels wide, in the colours of `LINES`."""
    height, width = rgb.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))
    true_line, drawn_line = (
        _line(np.asarray(Image.fromarray(m).resize(size, Image.Resampling.NEAREST))) for m in (truth, drawn)
    )
    both = true_line & drawn_line
    return overlay(small, list(zip(LINES, (true_line & ~both, drawn_line & ~both, both), strict=True)))


def legend() -> list[tuple[str, str]]:
    """Each kind of line with its colour as CSS writes it."""
    return [(name, "rgb({}, {}, {})".format(*colour)) for name, colour in zip(LINES, COLOURS, strict=False)]


def _line(mask: Mask) -> Mask:
    """The outline of a mask and one pixel more to the inside."""
    return np.asarray(mask & ndimage.binary_dilation(outline(mask)), dtype=np.bool_)


def _picture(case: Case, conversation: Conversation, root: Path, out: Path) -> str:
    scene = Scene(conversation, root)
    rgb = to_rgb(scene.picture.pixels, conversation.modality, scene.picture.body_part)
    truth = scene.mask(conversation.turns[case.turn - 1].targets[0])
    drawn: Mask = np.zeros(scene.shape, dtype=bool)
    if case.mask:
        with Image.open(out / case.mask) as kept:
            drawn = np.asarray(kept, dtype=bool)
    stream = io.BytesIO()
    Image.fromarray(draw(rgb, truth, drawn)).save(stream, "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
