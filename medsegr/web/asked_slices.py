"""Which slices of a volume a question was about: of the others, a correction says nothing unless it outlines something in
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegr.errors import MedSegRError
from medsegr.imaging import Picture, Volume
from medsegr.imaging.dicom_series import Stack
from medsegr.rounds.capture import capture
from medsegr.rounds.cases import TrainingSlices
from medsegr.web.requests import AskOptions


def asked_slices(options: Mapping[str, Any], stack: Stack | None, image: Picture | Volume) -> range | None:
    """The slices that a turn with these stored `options` was about; None for all of them, and for a picture."""
    if isinstance(image, Picture):
        return None
    first, last = 0, image.n_slices - 1
    text = str(options.get("slices", "all"))
    if text == "this":
        index = stack.index(str(options.get("instance")), options.get("frame") or 1) if stack else None
        if index is not None:
            first = last = index
    elif (found := AskOptions.model_construct(slices=text).slice_range) is not None:
        first, last = found[0], min(found[1], last)
    if options.get("one_slice"):
        first = last = (first + last) // 2
    return None if (first, last) == (0, image.n_slices - 1) else range(first, last + 1)


def keep_asked(
    slices: TrainingSlices,
    image: Volume,
    masks: Sequence[NDArray[np.bool_]],
    asked: range,
    limit: int,
) -> TrainingSlices:
    """Those of the slices that were asked about or that a mask reaches. Where none is left, which is so when nothing is
    present, slices are taken anew from those asked about. Raises `MedSegRError`.
    """
    kept = _filtered(slices, asked)
    if kept is not None:
        return kept
    line = np.zeros(image.n_slices, np.bool_)
    line[asked.start : asked.stop] = True
    shape = [1, 1, 1]
    shape[image.slice_axis] = image.n_slices
    marker = np.broadcast_to(line.reshape(shape), image.shape)
    anew = capture(image, [marker, *masks], limit)
    kept = _filtered(TrainingSlices(anew.rgb, anew.masks[1:], anew.index), asked)
    if kept is None:
        raise MedSegRError("None of the slices that were asked about could be kept.")
    return kept


def _filtered(slices: TrainingSlices, asked: range) -> TrainingSlices | None:
    reached = slices.masks.any(axis=(0, 2, 3)) if len(slices.masks) else np.zeros(len(slices.index), bool)
    keep = np.flatnonzero([int(k) in asked or bool(r) for k, r in zip(slices.index, reached, strict=True)])
    if not len(keep):
        return None
    return TrainingSlices(slices.rgb[keep], slices.masks[:, keep], slices.index[keep])
