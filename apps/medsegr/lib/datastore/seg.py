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
    """The SEG of a label map on one of a series' stacks, None where it is empty; raises `ImageError`."""
    stack, values = _fitting(stacks(files), label)
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


def _fitting(found: Sequence[Stack], label: Path) -> tuple[Stack, NDArray[Any]]:
    """The first stack whose grid the label lies on, and the label's values there."""
    refusal: ImageError | None = None
    for stack in found:
        try:
            return stack, read_label_map(label, grid(stack)).values
        except ImageError as error:
            refusal = refusal or error
    raise refusal or ImageError("The series holds no image that a label could lie on.")


def grid(stack: Stack) -> Picture | Volume:
    """An empty image on a stack's grid that takes no memory."""
    zeros = np.broadcast_to(np.uint8(0), stack.shape)
    if stack.affine is None:
        return Picture(zeros, None, stack.spacing_mm)
    return Volume(zeros, stack.affine, None)
