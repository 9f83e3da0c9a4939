"""The pictures of a round's page: the part of a case around its masks, with outlines, as PNG data URIs."""

from __future__ import annotations

import base64
import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medsegr.errors import ImageError
from medsegr.imaging.overlays import outline

SIDE = 256
"""Width and height of a picture, in pixels."""
AROUND = 0.35
"""What is shown around the masks, as a share of their extent on each side."""
LEAST = 32
"""Pixels of the image that are shown at least."""
TRUTH, BEFORE, AFTER = (255, 255, 255), (255, 176, 0), (64, 200, 255)
LEGEND = (("correction", TRUTH), ("before", BEFORE), ("after", AFTER))
"""Lines with their colours, which differ in brightness as well."""

Mask = NDArray[np.bool_]


def picture(
    rgb: NDArray[np.uint8], truth: Mask, answer: Mask, other: Mask, which: Literal["before", "after"]
) -> str:
    """`rgb` [H, W, 3] cut to where any of the masks [H, W] is, with the outlines of the correction and of this answer.

    `other` is the second picture's answer: it counts for the cut alone, so that both show the same part. Raises `ImageError`.
    """
    for mask in (truth, answer, other):
        if rgb.ndim != 3 or rgb.shape[2] != 3 or mask.shape != rgb.shape[:2]:
            raise ImageError(f"A mask of shape {mask.shape} does not lie on a picture of shape {rgb.shape}.")
    part = window(truth | answer | other)
    drawn = np.asarray(_scaled(Image.fromarray(np.ascontiguousarray(rgb[part])), Image.Resampling.BICUBIC))
    drawn = drawn.copy()
    colour = BEFORE if which == "before" else AFTER
    for mask, line in ((truth, TRUTH), (answer, colour)):
        edge = _line(_enlarged(mask[part]))
        drawn[ndimage.binary_dilation(edge) & ~edge] //= 3  # a dark rim, to be seen on anything
        drawn[edge] = line
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def window(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns around what is inside `mask`, about as high as wide; the whole picture if nothing is."""
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    extent = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
    side = max(LEAST, round(extent * (1 + 2 * AROUND)))
    first, second = (
        _side(int(ends[0] + ends[-1] + 1) / 2, side, size)
        for ends, size in zip((rows, columns), mask.shape, strict=True)
    )
    return first, second


def _side(centre: float, side: int, size: int) -> slice:
    side = min(side, size)
    start = min(max(round(centre - side / 2), 0), size - side)
    return slice(start, start + side)


def _scaled(image: Image.Image, how: Image.Resampling) -> Image.Image:
    scale = SIDE / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)


def _enlarged(mask: Mask) -> Mask:
    """The mask at the picture's size, its steps smoothed."""
    grey = _scaled(Image.fromarray(mask.astype(np.uint8) * 255), Image.Resampling.BICUBIC)
    return np.asarray(np.asarray(grey) >= 128, dtype=np.bool_)


def _line(mask: Mask) -> Mask:
    """The outline, three pixels wide to the inside."""
    return np.asarray(mask & ndimage.binary_dilation(outline(mask), iterations=2), dtype=np.bool_)
