"""Labelled folders: `dataset.json`, `images/` and `masks/` of one set, as plain values. Nothing is decoded
except masks, once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medsegr.errors import MedSegRError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class LabelledImage:
    """One image with its label map (integers, 0 = background)."""

    stem: str
    image: Path
    mask: Path
    patient_id: str
    split: str


@dataclass(frozen=True)
class LabelledSet:
    """A labelled folder. `targets` maps a structure to the mask values whose union it is; `exhaustive`: every
    target is drawn wherever it is visible; `absent`: structures that no image of the set shows."""

    name: str
    folder: Path
    modality: str
    region: str
    targets: Mapping[str, tuple[int, ...]]
    exhaustive: bool
    absent: tuple[str, ...]
    licence: str
    licence_class: str
    images: tuple[LabelledImage, ...]

    def present(self, counts: NDArray[np.int64], pixels: int) -> tuple[str, ...]:
        """Targets with at least `pixels` pixels, in the set's order. `counts` [256]: pixels of each mask
        value.

        Where labels are not exhaustive, a target of several values whose own value (one that no smaller
        target has) is missing was possibly not drawn in full, so it is left out.
        """
        return tuple(
            name
            for name, values in self.targets.items()
            if int(counts[list(values)].sum()) >= pixels and (self.exhaustive or self._drawn(name, counts))
        )

    def _drawn(self, name: str, counts: NDArray[np.int64]) -> bool:
        values = set(self.targets[name])
        own = values - {v for other in self.targets.values() if set(other) < values for v in other}
        return not own or int(counts[list(own)].sum()) > 0

    def leaves(self, present: tuple[str, ...]) -> tuple[str, ...]:
        """The present targets that contain no other present target."""
        return tuple(
            n for n in present if not any(set(self.targets[o]) < set(self.targets[n]) for o in present)
        )

    def missing(self, counts: NDArray[np.int64]) -> tuple[str, ...]:
        """Targets that are certainly absent from an image: no pixel where labels are exhaustive, or declared
        absent."""
        empty = (
            name
            for name, values in self.targets.items()
            if self.exhaustive and not counts[list(values)].any()
        )
        return tuple(dict.fromkeys((*empty, *self.absent)))


def read_labelled_sets(data_dir: Path, licence: str = "any") -> list[LabelledSet]:
    """Every labelled set in a folder, by name; `licence='permissive'` leaves out the others. Raises
    `MedSegRError`."""
    if licence not in {"any", "permissive"}:
        raise MedSegRError(f"Licence is '{licence}'; expected 'any' or 'permissive'.")
    files = sorted(data_dir.glob("*/dataset.json")) or sorted(data_dir.glob("dataset.json"))
    if not files:
        raise MedSegRError(
            f"{data_dir} holds no labelled set; expected folders with a dataset.json, images/ and masks/."
        )
    sets = [read_labelled_set(path.parent) for path in files]
    kept = [s for s in sets if licence == "any" or s.licence_class == licence]
    if not kept:
        raise MedSegRError(
            f"None of the {len(sets)} sets in {data_dir} has a permissive licence; expected at least one."
        )
    return kept


def read_labelled_set(folder: Path) -> LabelledSet:
    """The set in one folder; raises `MedSegRError` for a missing key, image or mask."""
    path = folder / "dataset.json"
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        targets = {str(k): tuple(int(v) for v in values) for k, values in row["targets"].items()}
        stems = {str(k): (str(v["patient_id"]), str(v["split"])) for k, v in row["images"].items()}
        head = {key: str(row[key]) for key in ("modality", "region", "licence", "licence_class")}
        exhaustive = bool(row["labels_are_exhaustive"])
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise MedSegRError(f"{path} is not a labelled set's description: {error}.") from error
    except KeyError as error:
        raise MedSegRError(
            f"{path} lacks the key {error}; expected targets, images, modality, region, licence and more."
        ) from error
    if bad := [
        name for name, values in targets.items() if not values or min(values) < 1 or max(values) > 255
    ]:
        raise MedSegRError(
            f"{path}: target '{bad[0]}' has values {list(targets[bad[0]])}; expected integers from 1 to 255."
        )
    pictures = {p.stem: p for p in (folder / "images").glob("*") if p.suffix.lower() in SUFFIXES}
    images = []
    for stem, (patient, split) in stems.items():
        mask = folder / "masks" / f"{stem}.png"
        if stem not in pictures or not mask.is_file():
            raise MedSegRError(f"{path} names '{stem}', but images/ or masks/ in {folder} lacks it.")
        images.append(LabelledImage(stem, pictures[stem], mask, patient, split))
    return LabelledSet(
        str(row.get("name", folder.name)),
        folder,
        head["modality"],
        head["region"],
        targets,
        exhaustive,
        tuple(map(str, row.get("absent", ()))),
        head["licence"],
        head["licence_class"],
        tuple(images),
    )


def value_counts(mask: Path) -> NDArray[np.int64]:
    """Pixels of each value of a label image, [256] int64; raises like `read_labels`."""
    return np.bincount(read_labels(mask).ravel(), minlength=256)


def read_labels(mask: Path) -> NDArray[np.integer[Any]]:
    """A label image [H, W] with values 0 to 255; raises `MedSegRError` for anything else."""
    try:
        with Image.open(mask) as image:
            labels = np.asarray(image)
    except (OSError, UnidentifiedImageError) as error:
        raise MedSegRError(f"{mask} cannot be read as a label image: {error}.") from error
    if (
        labels.ndim != 2
        or not np.issubdtype(labels.dtype, np.integer)
        or (labels.size and (labels.min() < 0 or labels.max() > 255))
    ):
        raise MedSegRError(
            f"{mask} is {labels.dtype} of shape {labels.shape}; expected one channel of integers from 0 "
            "to 255."
        )
    return labels
