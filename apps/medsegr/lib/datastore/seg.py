"""A saved label map as DICOM SEG: on the stack that it fits, its segments named by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medsegr.dicom.segmentation import Segment, segmentation
from medsegr.errors import ImageError
from medsegr.imaging import Picture, Volume
from medsegr.imaging.dicom_series import Stack, stacks
from medsegr.imaging.label_reading import read_label_map
from medsegr.qa.formats.dicom_seg_writing import category, concept

DESCRIPTION = "MedSeg-R segmentation"


def make_seg(files: Sequence[Path], label: Path, info: Mapping[str, Any]) -> Dataset | None:
    """The SEG of a label map on one of a series' stacks, None where it is empty; raises `ImageError`.

    `info` may name the stack by its number, as replies do.
    """
    stack, values = _fitting(stacks(files), label, _number(info))
    names = names_by_value(info)
    present = [int(value) for value in np.unique(values) if value > 0]
    segments = []
    for value in present:
        name = names.get(value, f"label {value}")
        segments.append(Segment(name, category(name), concept(name), np.asarray(values == value)))
    return segmentation(stack, segments, DESCRIPTION) if segments else None


def names_by_value(info: Mapping[str, Any]) -> dict[int, str]:
    """Value -> name, from `label_info` [{name, idx}] of clients or `label_names` {name: value} of a reply."""
    listed = info.get("label_info")
    if isinstance(listed, list):
        pairs = [(entry.get("idx"), entry.get("name")) for entry in listed if isinstance(entry, dict)]
    else:
        reply = info.get("params")
        source = info if "label_names" in info else reply if isinstance(reply, dict) else {}
        known = source.get("label_names")
        pairs = [(value, name) for name, value in known.items()] if isinstance(known, dict) else []
    return {
        value: name.strip()
        for value, name in pairs
        if isinstance(value, int) and isinstance(name, str) and name.strip()
    }


def _number(info: Mapping[str, Any]) -> int | None:
    """The number of the stack that the label is about, where it is told."""
    reply = info.get("params")
    told = info.get("stack", reply.get("stack") if isinstance(reply, dict) else None)
    return told if isinstance(told, int) else None


def _fitting(found: Sequence[Stack], label: Path, number: int | None) -> tuple[Stack, NDArray[Any]]:
    """The stack whose grid the label lies on, and the label's values there: the one of this number, else the first.

    A picture has no place in space, so where several have the label's size and none is named, nobody knows which is meant.
    """
    fits: list[tuple[Stack, NDArray[Any]]] = []
    refusal: ImageError | None = None
    for n, stack in sorted(enumerate(found, start=1), key=lambda entry: entry[0] != number):  # that one first
        try:
            fits.append((stack, read_label_map(label, grid(stack)).values))
        except ImageError as error:
            refusal = refusal or error
            continue
        if stack.is_volume or n == number:
            break
    if not fits:
        raise refusal or ImageError("The series holds no image that a label could lie on.")
    if len(fits) > 1:
        raise ImageError(
            f"{len(fits)} images of the series have the label's size; it is not known which one it is of."
        )
    return fits[0]


def grid(stack: Stack) -> Picture | Volume:
    """An empty image on a stack's grid that takes no memory."""
    zeros = np.broadcast_to(np.uint8(0), stack.shape)
    if stack.affine is None:
        return Picture(zeros, None, stack.spacing_mm)
    return Volume(zeros, stack.affine, None)
