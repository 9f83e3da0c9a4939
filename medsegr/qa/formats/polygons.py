"""Masks as polygons and back, pixel for pixel: what ReasonSeg stores.

A polygon is painted as LISA's `get_mask_from_json` does: its outline and its inside, on whole pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.measure import find_contours

from medsegr.qa.formats.labels import Mask

Polygon = list[tuple[int, int]]
"""Corners as (x, y), x along the columns, whole pixels."""

EIGHT = np.ones((3, 3), bool)


def paint(polygon: Sequence[tuple[float, float]], size: tuple[int, int]) -> Mask:
    """The pixels [H, W] of a polygon, outline included; fractions of a pixel are cut off. `size` is (height, width)."""
    canvas = Image.new("1", (size[1], size[0]))
    corners = [(int(x), int(y)) for x, y in polygon]
    draw = ImageDraw.Draw(canvas)
    if len(corners) > 2:
        draw.polygon(corners, fill=1, outline=1)
    draw.line([*corners, corners[0]], fill=1)
    return np.array(canvas, bool)


def trace(mask: Mask) -> list[Polygon]:
    """Polygons whose painted pixels do not overlap and together are exactly `mask` [H, W].

    Each connected piece without holes is one polygon along its outer pixels; a piece with holes is cut through its first hole.
    """
    polygons: list[Polygon] = []
    todo: list[tuple[Mask, int, int]] = [(mask, 0, 0)]
    while todo:
        piece, top, left = todo.pop()
        labels: Any
        labels, _ = ndimage.label(piece, structure=EIGHT)
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            part = np.asarray(labels[box] == number)
            y, x = top + box[0].start, left + box[1].start
            outline = _outline(part)
            if np.array_equal(paint(outline, (part.shape[0], part.shape[1])), part):
                polygons.append([(column + x, row + y) for column, row in outline])
            else:
                row = _cut(part)
                todo += [(part[:row], y, x), (part[row:], y + row, x)]
    return sorted(polygons)


def _cut(part: Mask) -> int:
    """The row below which a piece is cut: through its first hole, else through its middle (at least two rows are there)."""
    holes = np.asarray(ndimage.binary_fill_holes(part)) & ~part
    rows = np.flatnonzero(holes.any(axis=1))
    row = int(rows[0]) + 1 if rows.size else part.shape[0] // 2
    return min(max(row, 1), part.shape[0] - 1)


def _outline(part: Mask) -> Polygon:
    """The outer pixels of one connected piece [H, W] in order, as (column, row)."""
    find: Any = find_contours  # scikit-image annotates it in part only
    contours = find(np.pad(part, 1).astype(np.uint8), 0.5, fully_connected="high")
    outer: NDArray[np.float64] = (
        max(contours, key=lambda c: float(np.ptp(c[:, 0])) + float(np.ptp(c[:, 1]))) - 1.0
    )
    chain: Polygon = []
    for y, x in outer:
        # A corner of the contour lies half-way between a pixel of the piece and one outside.
        near = [(int(np.floor(y)), int(np.floor(x))), (int(np.ceil(y)), int(np.ceil(x)))]
        row, column = next(p for p in near if _inside(part, p))
        if not chain or chain[-1] != (column, row):
            chain.append((column, row))
    while len(chain) > 1 and chain[-1] == chain[0]:
        chain.pop()
    return chain


def _inside(part: Mask, pixel: tuple[int, int]) -> bool:
    row, column = pixel
    return 0 <= row < part.shape[0] and 0 <= column < part.shape[1] and bool(part[row, column])
