"""Pictures for the review page: the image as PNG, and per target one transparent PNG with its outline.

Everything is drawn in display orientation. The image keeps its pixels (up to a limit); outlines are drawn on a finer
grid, so that they stay thin over small images.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medsegr.errors import ImageError
from medsegr.imaging import COLOURS, Picture, Volume, read_image, to_rgb, volume_intensity_range
from medsegr.qa.schema import Conversation, Target

MAX_SIDE = 2048
OUTLINE_SIDE = 1024
OUTLINE_PX = 3
FILL_ALPHA = 28


@dataclass(frozen=True)
class View:
    """How an image is shown. `aspect`: width / height in mm (in pixels where the spacing is unknown); `slices`: their
    number, 1 for a picture; `first`: the slice to begin with."""

    aspect: float
    slices: int
    first: int


class Pictures:
    """Draws the conversations of one file; `root` is the folder that their paths are relative to."""

    def __init__(self, root: Path, kept: int = 2) -> None:
        self._root = root
        self._image = lru_cache(maxsize=kept)(self._read_image)
        self._mask = lru_cache(maxsize=kept)(self._read_mask)

    def view(self, conversation: Conversation) -> View:
        """How the conversation's image is shown; raises `ImageError` if it or a mask cannot be read."""
        image = self._load(conversation)
        aspect = _aspect(image, conversation)
        if isinstance(image, Picture):
            return View(aspect, 1, 0)
        if conversation.slice is not None:
            return View(aspect, 1, conversation.slice.index)
        return View(aspect, image.n_slices, self._fullest(conversation, image))

    def image(self, conversation: Conversation, k: int) -> bytes:
        """PNG of the image, or of slice `k` of a volume."""
        image = self._load(conversation)
        if isinstance(image, Picture):
            rgb = to_rgb(image.pixels, image.modality, image.body_part)
        else:
            rgb = to_rgb(
                image.slice_pixels(k), image.modality, image.body_part, volume_intensity_range(image)
            )
        grey = bool((rgb == rgb[..., :1]).all())
        drawn = Image.fromarray(np.ascontiguousarray(rgb[..., 0]) if grey else rgb)
        drawn.thumbnail((MAX_SIDE, MAX_SIDE))
        return _png(drawn)

    def outline(self, conversation: Conversation, number: int, k: int) -> bytes:
        """PNG (RGBA) of target `number` of `targets_of`, transparent outside the mask; `k` as in `image`."""
        target = targets_of(conversation)[number]
        plane = self._plane(conversation, target, k)
        aspect = _aspect(
            self._load(conversation), conversation
        )  # as it is shown, so that lines are equally thick
        width, height = min(1.0, aspect) * OUTLINE_SIDE, min(1.0, 1 / aspect) * OUTLINE_SIDE
        size = (max(1, round(width)), max(1, round(height)))
        shrinks = plane.shape[1] > size[0] or plane.shape[0] > size[1]
        resample = (
            Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
        )  # a thin structure must not vanish
        fine = np.asarray(Image.fromarray(plane.astype(np.uint8) * 255).resize(size, resample)) > 0
        rim = fine & ~ndimage.binary_erosion(fine, iterations=OUTLINE_PX)
        rgba = np.zeros((*fine.shape, 4), np.uint8)
        rgba[..., :3] = COLOURS[number % len(COLOURS)]
        rgba[fine, 3] = FILL_ALPHA
        rgba[rim, 3] = 255
        return _png(Image.fromarray(rgba))

    def _load(self, conversation: Conversation) -> Picture | Volume:
        cut = conversation.slice
        image = self._image(conversation.image, conversation.modality, cut.axis if cut else None)
        if cut is not None and (isinstance(image, Picture) or cut.index >= image.n_slices):
            raise ImageError(
                f"'{conversation.image}' has no slice {cut.index} along axis {cut.axis}; expected a volume that has it."
            )
        return image

    def _read_image(self, name: str, modality: str, axis: int | None) -> Picture | Volume:
        image = read_image(self._root / name, modality)
        if isinstance(image, Volume) and axis is not None:
            return replace(image, acquisition_axis=axis)
        return image

    def _read_mask(self, name: str) -> NDArray[Any]:
        """Label values: [H, W] of a picture, [X, Y, Z] of a volume."""
        path = self._root / name
        if path.suffix.lower() == ".png" and path.is_file():
            with Image.open(path) as image:
                return np.asarray(image)
        mask = read_image(path)
        return np.asarray(mask.pixels if isinstance(mask, Picture) else mask.voxels)

    def _plane(self, conversation: Conversation, target: Target, k: int) -> NDArray[np.bool_]:
        """[H, W] bool of one target in display orientation."""
        image, labels = self._load(conversation), self._mask(target.mask)
        if isinstance(image, Volume) and labels.ndim == 3:
            labels, shape = image.slice_from_volume(k, labels), image.slice_pixels(k).shape[:2]
        else:
            shape = image.pixels.shape[:2] if isinstance(image, Picture) else image.slice_pixels(k).shape[:2]
        if labels.shape != shape:
            raise ImageError(f"Mask '{target.mask}' has shape {labels.shape}; the image shown is {shape}.")
        return np.isin(labels, target.value)

    def _fullest(self, conversation: Conversation, volume: Volume) -> int:
        """The slice that shows most of the targets; the middle one without targets."""
        others = tuple(axis for axis in range(3) if axis != volume.slice_axis)
        area = np.zeros(volume.n_slices, np.int64)
        for target in targets_of(conversation):
            labels = self._mask(target.mask)
            if labels.shape == volume.shape:
                area += np.isin(labels, target.value).sum(axis=others)
        return int(area.argmax()) if area.any() else volume.n_slices // 2


def targets_of(conversation: Conversation) -> list[Target]:
    """The distinct masks of a conversation in the order in which they are first named; target n has colour n."""
    found: dict[tuple[str, str, tuple[int, ...]], Target] = {}
    for turn in conversation.turns:
        for target in turn.targets:
            found.setdefault((target.label, target.mask, target.value), target)
    return list(found.values())


def _aspect(image: Picture | Volume, conversation: Conversation) -> float:
    """Width / height of the picture or slice in mm, or in pixels."""
    if isinstance(image, Picture):
        height, width = image.pixels.shape[:2]
        row_mm, column_mm = image.spacing_mm or _spacing_of(conversation)
    else:
        height, width = image.slice_pixels(0).shape[:2]
        row_mm, column_mm = image.slice_spacing_mm
    return width * column_mm / (height * row_mm)


def _spacing_of(conversation: Conversation) -> tuple[float, float]:
    """(row, column) spacing that the file gives, else square pixels."""
    spacing = conversation.spacing_mm
    return (spacing[0], spacing[1]) if spacing is not None and len(spacing) == 2 else (1.0, 1.0)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=3)
    return stream.getvalue()
