"""NIfTI volumes with label maps: `images/NAME.nii.gz`, `labels/NAME.nii.gz` and the names of the values in a JSON file.

Folders may be called images, imagesTr, imagesTs and labels, labelsTr, labelsTs, masks (nnU-Net's `_0000` after an image's name
is understood). Names are read from labels.json or dataset.json: {"1": "liver"}, {"liver": 1} or {"kidneys": [2, 3]}, at the top
or under "labels" or "targets"; there, "modality" or "channel_names", and "images" {NAME: {patient_id, split}} are used as well.
The format has no questions and no answers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medsegr.errors import ImageError, QAFileError
from medsegr.imaging import Volume, read_image
from medsegr.qa.formats.drafts import Shelf, save_labels
from medsegr.qa.formats.labels import bare_name, cached_labels, is_nifti, read_labels, same_size
from medsegr.qa.formats.records import (
    Item,
    ReadOptions,
    Report,
    WriteOptions,
    by_image,
    image_targets,
    load_json,
    mapping,
    modality,
    outlined,
    split_of,
)
from medsegr.qa.schema import Conversation, Target, Turn

IMAGES = ("images", "imagesTr", "imagesTs")
LABELS = ("labels", "labelsTr", "labelsTs", "masks")
NAMES = ("labels.json", "dataset.json")
MAX_SHIFT_MM = 1e-2


@dataclass(frozen=True)
class Names:
    """What the JSON file says: the values of each structure, the modality, and patient and split of each image."""

    values: Mapping[str, tuple[int, ...]]
    modality: str | None
    images: Mapping[str, Mapping[str, Any]]


def read(source: Path, shelf: Shelf, options: ReadOptions) -> Iterator[Conversation]:
    """A conversation for each named structure that each label map shows; raises `QAFileError` naming the file."""
    names = read_names(source)
    labels = {bare_name(p): p for f in LABELS for p in sorted((source / f).glob("*")) if is_nifti(p)}
    images = {bare_name(p): p for f in IMAGES for p in sorted((source / f).glob("*")) if is_nifti(p)}
    images = {stem.removesuffix("_0000"): p for stem, p in images.items()}
    if not labels:
        raise QAFileError(f"{source} has no label maps; NIfTI files in {', '.join(LABELS)} are expected.")
    for stem, path in labels.items():
        if stem not in images:
            raise QAFileError(f"{path}: there is no image of this name in {', '.join(IMAGES)}.")
        yield from _read_one(stem, images[stem], path, names, shelf, options)
    if lone := images.keys() - labels.keys():
        shelf.notes["images without a label map"] += len(lone)


def _read_one(
    stem: str, image: Path, path: Path, names: Names, shelf: Shelf, options: ReadOptions
) -> Iterator[Conversation]:
    dataset = options.dataset or path.parent.parent.name or "nifti"
    volume = _volume(image)
    values = _label_map(path, volume)
    named = {value for group in names.values.values() for value in group}
    if unnamed := set(values) - named - {0}:
        shelf.notes["values without a name"] += len(unnamed)
    name = shelf.name(stem)
    row = names.images.get(stem, {})
    mask = f"{shelf.folder}/masks/{name}.nii{'.gz' if path.name.lower().endswith('.gz') else ''}"
    shutil.copyfile(path, shelf.place(mask))
    copy = shelf.image(image, name)
    for label, group in names.values.items():
        if not values & set(group):
            continue
        yield Conversation(
            id=f"{dataset}_{shelf.name(f'{name}_{label}')}",
            image=copy,
            modality=modality(options, names.modality or volume.modality, str(image)),
            dataset=dataset,
            patient_id=str(row.get("patient_id") or options.patient(stem, copy)),
            split=split_of(str(row.get("split", "")), options),
            turns=(
                Turn(
                    f"Outline the {label}.",
                    outlined([label]),
                    (Target(label, label, mask, group),),
                    "explicit",
                ),
            ),
            licence=options.licence,
            licence_class=options.licence_class,
            spacing_mm=volume.spacing_mm,
        )


def _volume(path: Path) -> Volume:
    try:
        volume = read_image(path)
    except ImageError as error:
        raise QAFileError(f"{path}: {error}") from error
    if not isinstance(volume, Volume):
        raise QAFileError(f"{path}: a picture was found; a NIfTI volume is expected.")
    return volume


def _label_map(path: Path, volume: Volume) -> set[int]:
    """The values of a label map; raises `QAFileError` where it is not on its image's grid."""
    labels = read_labels(path, str(path))
    same_size(labels.shape, volume.shape, path, str(path))
    affine: NDArray[Any] = np.asarray(nib.load(path).affine)  # type: ignore[attr-defined]
    shift = float(np.abs(affine - volume.affine).max())
    if shift > MAX_SHIFT_MM:
        raise QAFileError(
            f"{path}: the affine differs from the image's by up to {shift:.3g}; the same grid is expected."
        )
    if labels.min() < 0:
        raise QAFileError(f"{path}: the value {labels.min()} was found; labels from 0 are expected.")
    return {int(v) for v in np.unique(labels)}


def read_names(source: Path) -> Names:
    """The names beside a folder of label maps; raises `QAFileError` where there are none or a value is no label."""
    path = next((source / n for n in NAMES if (source / n).is_file()), None)
    if path is None:
        raise QAFileError(
            f"{source} has neither {' nor '.join(NAMES)}; the names of the labels are expected there."
        )
    row = mapping(load_json(path), str(path))
    table = mapping(row.get("labels", row.get("targets", row)), f"{path}: 'labels'")
    values: dict[str, tuple[int, ...]] = {}
    for key, value in table.items():
        by_value = key.isdecimal() and isinstance(value, str)
        name, said = (value, int(key)) if by_value else (key, value)
        group = said if isinstance(said, list) else [said]
        if not name.strip() or not group or not all(isinstance(v, int) and v >= 0 for v in group):
            raise QAFileError(
                f"{path}: '{key}' is {value!r}; a name and its value, such as \"liver\": 1, is expected."
            )
        if group != [0]:
            values[name] = tuple(group)
    channels = row.get("channel_names")
    said_modality = row.get("modality", channels.get("0") if isinstance(channels, dict) else None)
    images = row.get("images") if isinstance(row.get("images"), dict) else {}
    return Names(values, said_modality if isinstance(said_modality, str) else None, dict(images or {}))


def write(items: Sequence[Item], out: Path, options: WriteOptions) -> Report:
    """`out/images/`, `out/labels/` and `out/labels.json`. Values are kept where all images agree on them and each has one
    label map; otherwise structures are numbered by name and a smaller one is written over a larger one."""
    report = Report()
    kept = [i for i in items if is_nifti(i.image)]
    if len(kept) < len(items):
        report.dropped["conversations about images that are not NIfTI"] += len(items) - len(kept)
    if not kept:
        return report
    report.dropped["questions and answers"] += sum(len(i.conversation.turns) for i in kept)
    if slices := sum(i.conversation.slice is not None for i in kept):
        report.dropped["choices of a slice"] += slices
    found = {image: (members[0], image_targets(members, report)) for image, members in by_image(kept).items()}
    table = _common_values([targets for _, targets in found.values()])
    numbered = table is None
    labels = sorted({label for _, targets in found.values() for label in targets})
    table = table or {label: (n,) for n, label in enumerate(labels, start=1)}
    names = Shelf(out, "")
    for image, (item, targets) in found.items():
        if not targets:
            continue
        name = names.name(bare_name(image))
        place = names.place(
            f"images/{name}{''.join(image.suffixes[-2:]) if image.suffix == '.gz' else image.suffix}"
        )
        shutil.copyfile(image, place)
        if numbered:
            _paint(item, targets, table, names.place(f"labels/{name}.nii.gz"), report)
        else:
            mask = item.root / next(iter(targets.values())).mask
            cached_labels(mask, item.where)
            shutil.copyfile(
                mask, names.place(f"labels/{name}{'.nii.gz' if mask.name.endswith('.gz') else '.nii'}")
            )
        report.count += 1
    text = {label: group[0] if len(group) == 1 else list(group) for label, group in table.items()}
    names.place("labels.json").write_text(
        json.dumps({"labels": text}, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    return report


def _common_values(images: Sequence[Mapping[str, Target]]) -> dict[str, tuple[int, ...]] | None:
    """The values of every structure, None where two images disagree, an image has several files, or a value means two things."""
    values: dict[str, tuple[int, ...]] = {}
    for targets in images:
        if len({t.mask for t in targets.values()}) > 1:
            return None
        for label, target in targets.items():
            if values.setdefault(label, target.value) != target.value:
                return None
    return values if len(set(values.values())) == len(values) else None


def _paint(
    item: Item,
    targets: Mapping[str, Target],
    table: Mapping[str, tuple[int, ...]],
    path: Path,
    report: Report,
) -> None:
    masks = {label: item.target_mask(target) for label, target in targets.items()}
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8 if len(table) < 256 else np.uint16)
    for label in sorted(masks, key=lambda name: -int(masks[name].sum())):
        if covered := int(np.count_nonzero(labels[masks[label]])):
            report.dropped["voxels of overlapping structures"] += covered
        labels[masks[label]] = table[label][0]
    save_labels(labels, path, np.asarray(nib.load(item.image).affine))  # type: ignore[attr-defined]
