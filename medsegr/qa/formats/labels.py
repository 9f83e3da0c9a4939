"""Masks and label maps of the formats: read, checked against their image, packed into few files, taken apart again.

Arrays are [H, W] for pictures and [X, Y, Z] for volumes. Everything that is wrong is a `QAFileError` that begins with `where`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medsegr.errors import QAFileError
from medsegr.qa.schema import Target

Mask = NDArray[np.bool_]
NIFTI = (".nii", ".nii.gz")
MAX_VALUE = 254
"""Largest value that packing gives out: 255 stays free for what is to be ignored."""


def is_nifti(path: Path | str) -> bool:
    """Whether a file's name says NIfTI."""
    return str(path).lower().endswith(NIFTI)


def bare_name(path: Path | str) -> str:
    """A file's name without its suffix, `.nii.gz` counting as one."""
    name = Path(path).name
    return name[:-7] if name.lower().endswith(".nii.gz") else Path(name).stem


def picture_size(path: Path, where: str) -> tuple[int, int]:
    """(height, width) of a PNG, JPEG or other picture that decodes whole; raises `QAFileError`."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.height, image.width
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise QAFileError(
            f"{where}: image '{path}' cannot be read ({_short(error)}); a PNG or JPEG picture is expected."
        ) from error


def read_labels(path: Path, where: str) -> NDArray[np.int64]:
    """Integers of a label image, [H, W] of a picture or [X, Y, Z] of a NIfTI file; raises `QAFileError`."""
    try:
        if is_nifti(path):
            values = np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
        else:
            with Image.open(path) as image:
                values = np.asarray(image)
    except (OSError, UnidentifiedImageError, ImageFileError, SyntaxError, ValueError, EOFError) as error:
        raise QAFileError(
            f"{where}: mask '{path}' cannot be read ({_short(error)}); a label PNG or NIfTI file is expected."
        ) from error
    if values.ndim > 3 and set(values.shape[3:]) == {1}:
        values = values.reshape(values.shape[:3])
    if values.ndim != (3 if is_nifti(path) else 2) and not (is_nifti(path) and values.ndim == 2):
        raise QAFileError(f"{where}: mask '{path}' has shape {values.shape}; one channel is expected.")
    if values.dtype.kind == "f":
        if not np.array_equal(values, np.rint(values)):
            raise QAFileError(f"{where}: mask '{path}' holds fractions; whole numbers are expected.")
        values = np.rint(values)
    labels = values.astype(np.int64)
    return labels.reshape((*labels.shape, 1)) if is_nifti(path) and labels.ndim == 2 else labels


def read_binary(path: Path, size: tuple[int, int], where: str, above: int = 0) -> Mask:
    """A mask picture as booleans [H, W]: what exceeds `above`, in its only or its grey channel.

    `size`: (height, width) of its image. Raises `QAFileError` where the mask is unreadable or of another size.
    """
    try:
        with Image.open(path) as image:
            one_channel = image.mode in {"1", "L", "P", "I", "I;16"}
            values = np.asarray(image if one_channel else image.convert("L"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise QAFileError(
            f"{where}: mask '{path}' cannot be read ({_short(error)}); a black and white picture is expected."
        ) from error
    same_size(values.shape, size, path, where)
    threshold = 0 if values.max(initial=0) <= 1 else above
    return np.asarray(values > threshold)


def same_size(found: Sequence[int], size: Sequence[int], path: Path | str, where: str) -> None:
    """Raise `QAFileError` where a mask is not on its image's grid."""
    if tuple(found) != tuple(size):
        raise QAFileError(
            f"{where}: mask '{path}' is {' x '.join(map(str, found))}, but its image is "
            f"{' x '.join(map(str, size))}; the same grid is expected."
        )


def pack(masks: Iterable[tuple[int, Mask]]) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Masks, each with the value it is to have (1 to `MAX_VALUE`), as few label maps.

    Returns the label maps and, for each mask, the map that holds it. Masks that overlap, or have the same value, go to different
    maps. Masks are taken one at a time, so a generator keeps memory small.
    """
    maps: list[NDArray[np.uint8]] = []
    used: list[set[int]] = []
    places: list[int] = []
    for value, mask in masks:
        place = next((n for n, m in enumerate(maps) if value not in used[n] and not m[mask].any()), len(maps))
        if place == len(maps):
            maps.append(np.zeros(mask.shape, np.uint8))
            used.append(set())
        maps[place][mask] = value
        used[place].add(value)
        places.append(place)
    return maps, places


@lru_cache(maxsize=8)
def cached_labels(path: Path, where: str) -> NDArray[np.int64]:
    """`read_labels`, remembered for the few files that neighbouring lines share; do not change the array."""
    labels = read_labels(path, where)
    labels.setflags(write=False)
    return labels


def target_mask(root: Path, target: Target, where: str) -> Mask:
    """The mask of a target as booleans; raises `QAFileError` where its file is missing or lacks the values."""
    labels = cached_labels(root / target.mask, where)
    mask = np.asarray(np.isin(labels, target.value))
    if not mask.any():
        raise QAFileError(
            f"{where}: mask '{target.mask}' has none of the values {list(target.value)} of '{target.label}'."
        )
    return mask


def save_binary(mask: Mask, path: Path) -> None:
    """A mask as a PNG of 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(path, format="PNG")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__
