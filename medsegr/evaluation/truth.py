"""The picture that a conversation is about, and the true masks of its targets, read from the paths of a MedSeg-QA file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medsegr.errors import MedSegRError
from medsegr.evaluation.overlap import Mask, chose_best
from medsegr.imaging import Picture, Volume, read_image
from medsegr.qa.schema import Conversation, Target

KEPT = 8
NIFTI = (".nii", ".nii.gz")


class Scene:
    """One image with its true masks; label images are read once.

    picture: what the predictor is shown, with the file's spacing where the conversation gives none.
    """

    def __init__(self, conversation: Conversation, root: Path) -> None:
        self._root = root
        self._labels: OrderedDict[str, NDArray[np.int64]] = OrderedDict()
        self._volume: Volume | None = None
        self._index = 0
        read = read_image(root / conversation.image, conversation.modality)
        if isinstance(read, Volume):
            self._volume, self._index = read, _slice_index(read, conversation)
            read = Picture(
                read.slice_pixels(self._index), conversation.modality, read.slice_spacing_mm, read.body_part
            )
        self.picture = read
        given = conversation.spacing_mm
        self.spacing_mm = (given[0], given[1]) if given and len(given) == 2 else read.spacing_mm

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        return self.picture.pixels.shape[0], self.picture.pixels.shape[1]

    def mask(self, target: Target) -> Mask:
        """[H, W] bool on the picture's grid; raises `MedSegRError` if the label image is missing or has another size."""
        return np.isin(self._label_image(target.mask), target.value)

    def chose(self, prediction: Mask, asked: str, targets: Mapping[str, Target]) -> bool:
        """`chose_target` for the true masks of `targets` by label, from counts per label value (an image may have fifty
        targets)."""
        area = int(np.count_nonzero(prediction))
        hits: dict[str, NDArray[np.int64]] = {}
        sizes: dict[str, NDArray[np.int64]] = {}
        scores = {}
        for label, target in targets.items():
            if target.mask not in hits:
                labels = self._label_image(target.mask)
                sizes[target.mask] = np.bincount(labels.ravel())
                hits[target.mask] = np.bincount(labels[prediction], minlength=len(sizes[target.mask]))
            values = [v for v in set(target.value) if v < len(sizes[target.mask])]
            both, size = int(hits[target.mask][values].sum()), int(sizes[target.mask][values].sum())
            scores[label] = both / (area + size - both) if both else 0.0
        return chose_best(scores, asked)

    def _label_image(self, path: str) -> NDArray[np.int64]:
        if path not in self._labels:
            labels = self._read_labels(self._root / path)
            if labels.shape != self.shape:
                raise MedSegRError(
                    f"The mask '{path}' has shape {labels.shape}; expected that of its image, {self.shape}."
                )
            self._labels[path] = labels
            while len(self._labels) > KEPT:
                self._labels.popitem(last=False)
        self._labels.move_to_end(path)
        return self._labels[path]

    def _read_labels(self, path: Path) -> NDArray[np.int64]:
        try:
            if path.name.endswith(NIFTI):
                values: NDArray[Any] = np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
                if self._volume is not None:
                    values = self._volume.slice_from_volume(self._index, values)
            else:
                with Image.open(path) as image:
                    values = np.asarray(image)
        except (OSError, UnidentifiedImageError, nib.filebasedimages.ImageFileError) as error:
            raise MedSegRError(
                f"The mask '{path.name}' cannot be read ({error}); expected a label image in PNG or NIfTI."
            ) from error
        return values.astype(np.int64)


def _slice_index(volume: Volume, conversation: Conversation) -> int:
    """The slice that the conversation names, or the only one."""
    chosen = conversation.slice
    if chosen is None and volume.n_slices == 1:
        return 0
    if chosen is None or chosen.axis != volume.slice_axis:
        found = "no slice is named" if chosen is None else f"the slice is along axis {chosen.axis}"
        raise MedSegRError(
            f"Conversation '{conversation.id}' is about a volume and {found}; expected a slice along its "
            f"acquisition axis, {volume.slice_axis}."
        )
    return chosen.index
