"""ReasonSeg (LISA): `NAME.jpg` with `NAME.json`: `text` (rephrasings of one question), `is_sentence`, and `shapes`, polygons
with the label target, ignore or flag, painted from the largest to the smallest.

In the mask, 1 is the target and 255 what an evaluation is to ignore; `flag` shapes are passed over, as LISA's code does.
The format has one target an image, no answers, no names and no follow-ups; images are JPEG.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegr.errors import QAFileError
from medsegr.qa.formats.drafts import Shelf, copy_picture, save_labels
from medsegr.qa.formats.labels import Mask, cached_labels, picture_size
from medsegr.qa.formats.polygons import paint, trace
from medsegr.qa.formats.records import (
    Item,
    ReadOptions,
    Report,
    WriteOptions,
    by_image,
    first_turns,
    kind_of,
    load_json,
    mapping,
    modality,
    not_visible,
    outlined,
    pictures,
    split_of,
)
from medsegr.qa.schema import Conversation, Target, Turn

TARGET, IGNORE = 1, 255
SUFFIXES = (".jpg", ".jpeg", ".png")
ENCODINGS = ("utf-8", "cp1252")


def read(source: Path, shelf: Shelf, options: ReadOptions) -> Iterator[Conversation]:
    """A conversation for each text of each JSON file in `source` (a folder, or one file); raises `QAFileError`."""
    files = [source] if source.is_file() else sorted(source.rglob("*.json"))
    for path in files:
        yield from _read_one(path, shelf, options)


def _read_one(path: Path, shelf: Shelf, options: ReadOptions) -> Iterator[Conversation]:
    row = mapping(load_json(path, ENCODINGS), str(path))
    texts = row.get("text")
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise QAFileError(f"{path}: 'text' is {texts!r:.80}; a list of questions is expected.")
    image = next((p for s in SUFFIXES if (p := path.with_suffix(s)).is_file()), None)
    if image is None:
        raise QAFileError(
            f"{path}: there is no {path.stem}.jpg beside it; one image for each JSON file is expected."
        )
    labels = paint_shapes(row.get("shapes"), picture_size(image, str(path)), str(path))
    name = shelf.name(path.stem)
    targets: tuple[Target, ...] = ()
    if (labels == TARGET).any():
        mask = f"{shelf.folder}/masks/{name}.png"
        save_labels(labels, shelf.place(mask))
        targets = (Target(options.label, options.label, mask, (TARGET,)),)
    dataset = options.dataset or "reasonseg"
    copy = shelf.image(image, name)
    for number, question in enumerate(texts):
        answer = outlined([options.label]) if targets else not_visible(options.label)
        absent = () if targets else (options.label,)
        kind = kind_of(question, options.label) if targets else "absent_same_set"
        yield Conversation(
            id=f"{dataset}_{name}_q{number}",
            image=copy,
            modality=modality(options, None, str(path)),
            dataset=dataset,
            patient_id=options.patient(path.stem, copy),
            split=split_of(path.absolute().parent.name, options),
            turns=(Turn(question, answer, targets, kind, None, absent),),
            licence=options.licence,
            licence_class=options.licence_class,
        )


def paint_shapes(shapes: object, size: tuple[int, int], where: str) -> NDArray[np.uint8]:
    """The label map [H, W] of a list of shapes: 1 target, 255 ignore; raises `QAFileError` naming the shape."""
    if not isinstance(shapes, list):
        raise QAFileError(f"{where}: 'shapes' is {shapes!r:.80}; a list of polygons is expected.")
    painted: list[tuple[Mask, int]] = []
    for number, shape in enumerate(shapes):
        place = f"{where}: shapes[{number}]"
        row = mapping(shape, place)
        label = str(row.get("label", "")).lower()
        if "flag" in label:
            continue
        if label != "target" and "ignore" not in label:
            raise QAFileError(f"{place}: label is {row.get('label')!r}; target, ignore or flag is expected.")
        painted.append(
            (paint(_corners(row.get("points"), place), size), IGNORE if "ignore" in label else TARGET)
        )
    labels = np.zeros(size, np.uint8)
    for mask, value in sorted(painted, key=lambda m: -int(m[0].sum())):
        labels[mask] = value
    return labels


def _corners(points: object, where: str) -> list[tuple[float, float]]:
    try:
        corners = np.asarray(points, float)
    except (TypeError, ValueError):
        corners = np.zeros(0)
    if corners.ndim != 2 or corners.shape[0] < 1 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise QAFileError(f"{where}: points are {points!r:.80}; a list of [x, y] is expected.")
    return [(float(x), float(y)) for x, y in corners]


def write(items: Sequence[Item], out: Path, options: WriteOptions) -> Report:
    """`out/SPLIT/NAME.jpg` and `.json`: first turns about the same target of an image become one file with several texts."""
    report = Report()
    names: set[str] = set()
    for image, members in by_image(pictures(items, report)).items():
        by_target: dict[tuple[tuple[Target, ...], tuple[str, ...]], list[tuple[Item, str]]] = {}
        for item, turn in first_turns(members, report):
            report.dropped["answers"] += 1
            if not turn.question.strip():
                report.dropped["empty questions"] += 1
                continue
            if len(turn.targets) > 1:
                report.dropped["targets joined into one mask"] += len(turn.targets)
            by_target.setdefault((turn.targets, turn.absent), []).append((item, turn.question))
        ignore = _ignored(members)
        for (targets, _), asked in by_target.items():
            _write_one(image, targets, asked, ignore, out, names, report)
    return report


def _write_one(
    image: Path,
    targets: tuple[Target, ...],
    asked: list[tuple[Item, str]],
    ignore: set[str],
    out: Path,
    names: set[str],
    report: Report,
) -> None:
    item = asked[0][0]
    size = picture_size(image, item.where)
    shapes = []
    union = np.zeros(size, bool)
    for target in targets:
        union |= item.target_mask(target)
    shapes += [{"label": "target", "points": [list(p) for p in polygon]} for polygon in trace(union)]
    for file in sorted({t.mask for t in targets} & ignore):
        apart = (cached_labels(item.root / file, item.where) == IGNORE) & ~union
        shapes += [{"label": "ignore", "points": [list(p) for p in polygon]} for polygon in trace(apart)]
    split, stem = item.conversation.split, image.stem
    name, number = stem, 1
    while f"{split}/{name}" in names:
        number += 1
        name = f"{stem}_{number}"
    names.add(f"{split}/{name}")
    texts = [question for _, question in asked]
    record: dict[str, Any] = {
        "text": texts,
        "is_sentence": any(t.rstrip().endswith((".", "?", "!")) for t in texts),
        "shapes": shapes,
    }
    if not copy_picture(image, out / split / f"{name}.jpg"):
        report.dropped["exact pixels (images made JPEG)"] += 1
    (out / split / f"{name}.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    report.count += len(texts)


def _ignored(items: Sequence[Item]) -> set[str]:
    """Masks in which 255 is no target's value, hence what is to be ignored."""
    targets = [t for i in items for turn in i.conversation.turns for t in turn.targets]
    return {t.mask for t in targets} - {t.mask for t in targets if IGNORE in t.value}
