"""COCO: one JSON file of images, categories and annotations whose `segmentation` is polygons, or run lengths (RLE) written out
or compressed to a string.

Each category of an image becomes one target, the union of its annotations (a MedSeg-QA target is one mask; how many instances
were joined is counted). Writing gives an annotation for each value of a target. The format has no questions and no answers.
Masks are decoded and encoded by pycocotools; run lengths are checked first, because it reads damaged ones without complaint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from medsegr.errors import MedSegRError, QAFileError
from medsegr.qa.formats.drafts import Shelf, copy_picture
from medsegr.qa.formats.labels import Mask, cached_labels, picture_size, same_size
from medsegr.qa.formats.medisee import box_of
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
    pictures,
    split_of,
    text,
)
from medsegr.qa.schema import Conversation, Target, Turn

RLE = ("compressed", "uncompressed")
FILE = "annotations.json"


def read(source: Path, shelf: Shelf, options: ReadOptions) -> Iterator[Conversation]:
    """A conversation for each category of each image; `source` is the JSON file, its images beside it, in `images/`, or in
    `options.images`. Raises `QAFileError` naming file and annotation."""
    path = source / FILE if source.is_dir() else source
    record = mapping(load_json(path), str(path))
    names = {
        _id(row, "id", where): text(row, "name", where) for where, row in _rows(record, "categories", path)
    }
    images = {_id(row, "id", where): (where, row) for where, row in _rows(record, "images", path)}
    found: dict[int, dict[str, list[tuple[str, object]]]] = {number: {} for number in images}
    for where, row in _rows(record, "annotations", path):
        image, category = _id(row, "image_id", where), _id(row, "category_id", where)
        if image not in images or category not in names:
            missing = f"image {image}" if image not in images else f"category {category}"
            raise QAFileError(f"{where}: there is no {missing}.")
        found[image].setdefault(names[category], []).append((where, row.get("segmentation")))
    for number, categories in found.items():
        where, row = images[number]
        if not categories:
            shelf.notes["images without annotations"] += 1
            continue
        file = _image_file(text(row, "file_name", where), path.parent, options, where)
        yield from _read_image(file, where, row, categories, path, shelf, options)


def _read_image(
    file: Path,
    where: str,
    row: Mapping[str, Any],
    categories: Mapping[str, Sequence[tuple[str, object]]],
    path: Path,
    shelf: Shelf,
    options: ReadOptions,
) -> Iterator[Conversation]:
    size = picture_size(file, where)
    said = (row.get("height", size[0]), row.get("width", size[1]))
    same_size(said, size, file.name, where)
    found: list[tuple[str, Mask]] = []
    for label, members in categories.items():
        masks = [decode(segmentation, size, place) for place, segmentation in members]
        union = np.logical_or.reduce(masks)
        if not union.any():
            raise QAFileError(
                f"{members[0][0]}: '{label}' has no pixel; a mask that is not empty is expected."
            )
        if len(masks) > 1:
            shelf.notes["instances joined with others of their category"] += len(masks) - 1
        found.append((label, union))
    name = shelf.name(file.stem)
    dataset = options.dataset or path.stem
    image = shelf.image(file, name)
    for label, (mask, values) in zip(categories, shelf.masks(found, name), strict=True):
        yield Conversation(
            id=f"{dataset}_{shelf.name(f'{name}_{label}')}",
            image=image,
            modality=modality(options, None, where),
            dataset=dataset,
            patient_id=options.patient(file.stem, image),
            split=split_of(path.stem, options),
            turns=(
                Turn(
                    f"Outline the {label}.",
                    outlined([label]),
                    (Target(label, label, mask, values),),
                    "explicit",
                ),
            ),
            licence=options.licence,
            licence_class=options.licence_class,
        )


def _rows(record: Mapping[str, Any], key: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = record.get(key)
    if not isinstance(rows, list):
        raise QAFileError(f"{path}: '{key}' is {type(rows).__name__}; a list is expected.")
    for number, row in enumerate(rows):
        yield f"{path}: {key}[{number}]", mapping(row, f"{path}: {key}[{number}]")


def _id(row: Mapping[str, Any], key: str, where: str) -> int:
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise QAFileError(f"{where}: '{key}' is {value!r}; a whole number is expected.")
    return value


def _image_file(name: str, folder: Path, options: ReadOptions, where: str) -> Path:
    places = [options.images] if options.images else [folder, folder / "images"]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise QAFileError(
        f"{where}: image '{name}' does not exist in {places[0]}; name its folder with --images."
    )


def decode(segmentation: object, size: tuple[int, int], where: str) -> Mask:
    """The mask [H, W] of a `segmentation`: polygons, run lengths, or compressed run lengths; raises `QAFileError`."""
    height, width = size
    if isinstance(segmentation, list):
        polygons = [_polygon(p, where) for p in segmentation]
        if not polygons:
            raise QAFileError(f"{where}: 'segmentation' is empty; polygons or run lengths are expected.")
        codes = coco_mask.frPyObjects(polygons, height, width)
        return np.asarray(np.asarray(coco_mask.decode(codes)).any(axis=2))
    row = mapping(segmentation, f"{where}: 'segmentation'")
    if row.get("size") != [height, width]:
        raise QAFileError(f"{where}: RLE size is {row.get('size')!r}, but its image is [{height}, {width}].")
    counts = row.get("counts")
    runs = run_lengths(counts, where) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(n, int) and n >= 0 for n in runs):
        raise QAFileError(
            f"{where}: RLE counts are {counts!r:.60}; run lengths from 0 or their string are expected."
        )
    if sum(runs) != height * width:
        raise QAFileError(
            f"{where}: RLE counts cover {sum(runs)} pixels; {height * width} ({height} x {width}) are expected."
        )
    code = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return np.asarray(coco_mask.decode(code)).astype(bool)


def _polygon(corners: object, where: str) -> list[float]:
    numbers = isinstance(corners, list) and all(
        isinstance(v, int | float) and np.isfinite(v) for v in corners
    )
    if not isinstance(corners, list) or not numbers or len(corners) < 6 or len(corners) % 2:
        raise QAFileError(
            f"{where}: a polygon is {corners!r:.60}; at least three pairs of x, y are expected."
        )
    return [float(v) for v in corners]


def run_lengths(code: str, where: str) -> list[int]:
    """Run lengths of COCO's compressed string (`rleFrString` of its API): base 32, six bits a character from '0' on, low
    digits first; from the fourth on each is the difference to the run two before. Raises `QAFileError` where it is cut off."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in code:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise QAFileError(
                f"{where}: RLE string has the character {character!r}; '0' to 'o' are expected."
            )
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise QAFileError(f"{where}: the RLE string is cut off; a complete last number is expected.")
    return runs


def encode(mask: Mask, rle: str) -> dict[str, Any]:
    """RLE of a mask [H, W], compressed (counts: str) or uncompressed (counts: list, starting with the zeros)."""
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts: str | list[int] = code["counts"].decode("ascii")
    if rle == "uncompressed":
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(np.concatenate(([False], flat)))).tolist()
        counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": [int(n) for n in mask.shape], "counts": counts}


def write(items: Sequence[Item], out: Path, options: WriteOptions) -> Report:
    """`out/SPLIT/annotations.json` and `out/SPLIT/images/`: an annotation for each value of each target of an image."""
    if options.rle not in RLE:
        raise MedSegRError(f"--rle is '{options.rle}'; expected {' or '.join(RLE)}.")
    report = Report()
    kept = pictures(items, report)
    turns = sum(len(i.conversation.turns) for i in kept)
    if turns:
        report.dropped["questions and answers"] += turns
    labels = sorted({t.label for i in kept for turn in i.conversation.turns for t in turn.targets})
    categories = [{"id": n, "name": label} for n, label in enumerate(labels, start=1)]
    names = Shelf(out, "")
    records: dict[str, dict[str, list[Any]]] = {}
    for image, members in by_image(kept).items():
        targets = image_targets(members, report)
        item = members[0]
        split = item.conversation.split
        record = records.setdefault(split, {"images": [], "annotations": [], "categories": categories})
        file = f"{names.name(image.stem)}{image.suffix.lower()}"
        copy_picture(image, out / split / "images" / file)
        height, width = picture_size(image, item.where)
        number = len(record["images"]) + 1
        record["images"].append({"id": number, "file_name": file, "height": height, "width": width})
        for label, target in targets.items():
            for mask in _instances(item, target):
                record["annotations"].append(
                    {
                        "id": len(record["annotations"]) + 1,
                        "image_id": number,
                        "category_id": labels.index(label) + 1,
                        "iscrowd": 0,
                        "segmentation": encode(mask, options.rle),
                        "area": int(mask.sum()),
                        "bbox": _corner_and_size(mask),
                    }
                )
                report.count += 1
    for split, record in records.items():
        (out / split / FILE).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    return report


def _instances(item: Item, target: Target) -> list[Mask]:
    item.target_mask(target)
    labels = cached_labels(item.root / target.mask, item.where)
    return [mask for value in target.value if (mask := np.asarray(labels == value)).any()]


def _corner_and_size(mask: Mask) -> list[int]:
    x0, y0, x1, y1 = box_of(mask)
    return [x0, y0, x1 - x0, y1 - y0]
