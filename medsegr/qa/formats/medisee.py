"""MediSee: JSON Lines with image, mask, class_text, long and short (two wordings of one question) and bbox.

Masks are pictures in which what exceeds 127 belongs to the target; paths are relative to the file. `bbox` is written as
[x0, y0, x1, y1] in pixels, the last ones excluded; a reader checks its form and otherwise trusts the mask. The training file of
MediSee, one JSON object {image: {mask: class}}, is read as well. The format has no answers, no follow-ups and no empty targets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsegr.errors import QAFileError
from medsegr.qa.formats.drafts import Shelf, copy_picture
from medsegr.qa.formats.labels import Mask, picture_size, read_binary, save_binary
from medsegr.qa.formats.records import (
    Item,
    ReadOptions,
    Report,
    WriteOptions,
    first_turns,
    json_line,
    kind_of,
    load_json,
    mapping,
    modality,
    outlined,
    pictures,
    split_of,
    text,
)
from medsegr.qa.reader import numbered_lines
from medsegr.qa.schema import Conversation, Target, Turn

ABOVE = 127


def read(source: Path, shelf: Shelf, options: ReadOptions) -> Iterator[Conversation]:
    """A conversation for each wording of each line; raises `QAFileError` naming file and line."""
    for where, row in _rows(source):
        image, mask = (_path(row, key, source, options, where) for key in ("image", "mask"))
        label = text(row, "class_text", where)
        _check_box(row.get("bbox"), where)
        pixels = read_binary(mask, picture_size(image, where), where, ABOVE)
        if not pixels.any():
            raise QAFileError(f"{where}: mask '{mask}' is empty; a target of at least one pixel is expected.")
        name = shelf.name(mask.stem)
        ((file, values),) = shelf.masks([(label, pixels)], name)
        target = Target(label, label, file, values)
        dataset = options.dataset or "medisee"
        copy = shelf.image(image, shelf.name(image.stem))
        said = {key: text(row, key, where, "") for key in ("long", "short")}
        wordings = {key: question for key, question in said.items() if question.strip()}
        for key, question in (wordings or {"class": f"Outline the {label}."}).items():
            kind = kind_of(question, label)
            yield Conversation(
                id=f"{dataset}_{name}_{key}",
                image=copy,
                modality=modality(options, row.get("modality"), where),
                dataset=dataset,
                patient_id=options.patient(image.stem, copy),
                split=split_of(source.stem, options),
                turns=(Turn(question, outlined([label]), (target,), kind),),
                licence=options.licence,
                licence_class=options.licence_class,
            )


def _rows(source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if source.suffix.lower() != ".json":
        for number, line in numbered_lines(source):
            yield f"{source}:{number}", json_line(line, f"{source}:{number}")
        return
    for image, masks in mapping(load_json(source), str(source)).items():
        where = f"{source}: '{image}'"
        for mask, label in mapping(masks, where).items():
            yield where, {"image": image, "mask": mask, "class_text": label}


def _path(row: Mapping[str, Any], key: str, source: Path, options: ReadOptions, where: str) -> Path:
    named = text(row, key, where)
    path = (options.images or source.parent) / named
    if not path.is_file():
        raise QAFileError(f"{where}: {key} '{named}' does not exist in {options.images or source.parent}.")
    return path


def _check_box(box: object, where: str) -> None:
    numbers = isinstance(box, list) and all(isinstance(v, int | float) for v in box)
    if box is not None and not (numbers and len(box) == 4):  # type: ignore[arg-type]
        raise QAFileError(f"{where}: 'bbox' is {box!r:.80}; four numbers are expected.")


def write(items: Sequence[Item], out: Path, options: WriteOptions) -> Report:
    """`out/SPLIT.jsonl`, images/ and masks/: of the questions about one target, the longest and the shortest are kept."""
    report = Report()
    asked: dict[tuple[str, Path, Target], list[tuple[Item, str]]] = {}
    for item, turn in first_turns(pictures(items, report), report):
        report.dropped["answers"] += 1
        if not turn.targets:
            report.dropped["questions without a target"] += 1
        elif len(turn.targets) > 1:
            report.dropped["questions about several targets"] += 1
        else:
            key = (item.conversation.split, item.image, turn.targets[0])
            asked.setdefault(key, []).append((item, turn.question))
    lines: dict[str, list[str]] = {}
    names = Shelf(out, "")
    images: dict[Path, str] = {}
    for (split, image, target), questions in asked.items():
        if image not in images:
            images[image] = f"images/{names.name(image.stem)}{image.suffix.lower()}"
            copy_picture(image, out / images[image])
        mask = questions[0][0].target_mask(target)
        file = f"masks/{names.name(f'{image.stem}_{target.label}')}.png"
        save_binary(mask, out / file)
        wordings = sorted({question for _, question in questions}, key=lambda q: (-len(q), q))
        if len(wordings) > 2:
            report.dropped["further wordings"] += len(wordings) - 2
        record = {
            "image": images[image],
            "mask": file,
            "class_text": target.label,
            "long": wordings[0],
            "short": wordings[-1] if len(wordings) > 1 else "",
            "bbox": box_of(mask),
        }
        lines.setdefault(split, []).append(json.dumps(record, ensure_ascii=False) + "\n")
        report.count += len(wordings[:1] + wordings[1:][-1:])
    for split, rows in lines.items():
        (out / f"{split}.jsonl").write_text("".join(rows), encoding="utf-8")
    return report


def box_of(mask: Mask) -> list[int]:
    """[x0, y0, x1, y1] of a mask that is not empty, the last ones excluded."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
