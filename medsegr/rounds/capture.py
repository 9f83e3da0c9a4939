"""What a correction leaves for training: a few slices as the model is shown them, with the corrected masks.

They are taken when the correction is stored, so that a round needs no archive and no datastore.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medsegr.errors import ImageError
from medsegr.imaging import Picture, Volume, to_rgb, volume_intensity_range
from medsegr.imaging.resizing import resize_labels, resize_rgb
from medsegr.rounds.cases import TrainingSlices

LONG_SIDE = 768
"""Larger pictures are kept at this size; the model's square is smaller."""
EMPTY_SLICES = 2
"""Slices of a volume that are kept although no mask reaches them."""


def capture(image: Picture | Volume, masks: Sequence[NDArray[np.bool_]], limit: int = 8) -> TrainingSlices:
    """At most `limit` slices of the image with all masks, which lie on its grid ([H, W] or [X, Y, Z]). Of a volume: those with
    most of the masks, spread evenly, and two that the masks do not reach. Raises `ImageError`."""
    shape = image.pixels.shape[:2] if isinstance(image, Picture) else image.shape
    for mask in masks:
        if mask.shape != shape:
            raise ImageError(f"A mask of shape {mask.shape} is not on the image's grid {shape}.")
    if isinstance(image, Picture):
        rgb = _kept(to_rgb(image.pixels, image.modality, image.body_part))
        planes = [_kept_mask(mask, rgb.shape[:2]) for mask in masks]
        return _slices([rgb], [[plane] for plane in planes], [0])
    chosen = _chosen(image, masks, limit)
    scale = volume_intensity_range(image)
    shown = [_kept(to_rgb(image.slice_pixels(k), image.modality, image.body_part, scale)) for k in chosen]
    planes_of = [
        [_kept_mask(image.slice_from_volume(k, mask), shown[0].shape[:2]) for k in chosen] for mask in masks
    ]
    return _slices(shown, planes_of, chosen)


def _chosen(volume: Volume, masks: Sequence[NDArray[np.bool_]], limit: int) -> list[int]:
    """Slice numbers, ascending: evenly among those that a mask reaches, and a few others."""
    axes = tuple(axis for axis in range(3) if axis != volume.slice_axis)
    area = sum((mask.sum(axis=axes) for mask in masks), np.zeros(volume.n_slices, int))
    reached = [int(k) for k in np.flatnonzero(area)]
    others = [k for k in range(volume.n_slices) if not area[k]]
    n_others = min(len(others), EMPTY_SLICES if reached else limit)
    chosen = _spread(reached, limit - n_others) + _spread(others, n_others)
    return sorted(chosen)


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """`count` of the numbers, evenly spaced, without the very first and last where there is a choice."""
    if len(numbers) <= count:
        return list(numbers)
    places = (np.arange(count) + 0.5) * len(numbers) / count
    return [numbers[int(place)] for place in places]


def _kept(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    longest = max(rgb.shape[:2])
    return rgb if longest <= LONG_SIDE else resize_rgb(rgb, LONG_SIDE)


def _kept_mask(mask: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    if mask.shape == size:
        return np.ascontiguousarray(mask)
    kept: NDArray[np.bool_] = resize_labels(mask.astype(np.uint8), LONG_SIDE) > 0
    return kept


def _slices(
    rgb: Sequence[NDArray[np.uint8]], masks: Sequence[Sequence[NDArray[np.bool_]]], index: Sequence[int]
) -> TrainingSlices:
    h, w = rgb[0].shape[:2]
    stacked = (
        np.stack([np.stack(planes) for planes in masks]) if masks else np.zeros((0, len(rgb), h, w), bool)
    )
    return TrainingSlices(np.stack(rgb), stacked, np.asarray(index, np.int64))
