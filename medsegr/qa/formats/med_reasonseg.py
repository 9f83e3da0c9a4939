"""Med-ReasonSeg (MedFuse-Seg): rows of question, answer, image_path, mask_path, dataset and task, as JSON Lines or CSV.

Masks are pictures in which what exceeds 127 belongs to the target. A set whose name ends in `_negative` holds questions whose
right answer is "not present"; its rows need no mask. `task` is referring (a question) or semantic (a name). The answer carries
one [SEG] and no name: the target's name is taken from a mask that is called after its image as in BiomedParse
(`IMAGE_target+name.png`), else from --label. Rows have no follow-ups; several targets become one mask.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsegr.errors import QAFileError
from medsegr.qa.formats.biomedparse import name_parts
from medsegr.qa.formats.drafts import Shelf, copy_picture
from medsegr.qa.formats.labels import picture_size, read_binary, save_binary
from medsegr.qa.formats.records import (
    SEG,
    Item,
    ReadOptions,
    Report,
    WriteOptions,
    first_turns,
    json_line,
    kind_of,
    marked_up,
    modality,
    pictures,
    plain,
    split_of,
    text,
)
from medsegr.qa.reader import numbered_lines
from medsegr.qa.schema import Conversation, Target, Turn

COLUMNS = ("question", "answer", "image_path", "mask_path", "dataset", "task")
NEGATIVE = "_negative"
ABOVE = 127
TASKS = {"explicit": "semantic"}


def read(source: Path, shelf: Shelf, options: ReadOptions) -> Iterator[Conversation]:
    """A conversation for each row of a .jsonl or .csv file, or of each such file in a folder; raises `QAFileError`."""
    files = (
        [source]
        if source.is_file()
        else sorted(p for p in source.glob("*") if p.suffix in {".jsonl", ".csv"})
    )
    for path in files:
        for where, row in _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path):
            yield _read_row(row, where, path, shelf, options)


def _read_row(
    row: Mapping[str, Any], where: str, path: Path, shelf: Shelf, options: ReadOptions
) -> Conversation:
    folder = options.images or path.parent
    image = folder / text(row, "image_path", where)
    said = text(row, "dataset", where)
    question, answer = text(row, "question", where), text(row, "answer", where)
    size = picture_size(image, where)
    parts = name_parts(image.stem)
    name = shelf.name(image.stem)
    if said.endswith(NEGATIVE):
        turn = Turn(question, plain(answer).replace(SEG, "").strip() or "Not present.", (), "absent_same_set")
    else:
        mask = folder / text(row, "mask_path", where)
        pixels = read_binary(mask, size, where, ABOVE)
        if not pixels.any():
            raise QAFileError(
                f"{where}: mask '{mask}' is empty; a target, or a dataset ending in {NEGATIVE}, is expected."
            )
        own = mask.stem.startswith(f"{image.stem}_")
        label = mask.stem[len(image.stem) + 1 :].replace("+", " ").strip() if own else options.label
        ((file, values),) = shelf.masks([(label, pixels)], name)
        kind = "explicit" if row.get("task") == "semantic" else kind_of(question, label)
        turn = Turn(question, marked_up(answer, label), (Target(label, label, file, values),), kind)
    copy = shelf.image(image, name)
    dataset = options.dataset or said.removesuffix(NEGATIVE)
    return Conversation(
        id=f"{dataset}_{name}",
        image=copy,
        modality=modality(options, row.get("modality") or (parts and parts[1]), where),
        dataset=dataset,
        patient_id=options.patient(image.stem, copy),
        split=split_of(path.stem, options),
        turns=(turn,),
        licence=options.licence,
        licence_class=options.licence_class,
    )


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in numbered_lines(path):
        yield f"{path}:{number}", json_line(line, f"{path}:{number}")


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            missing = set(COLUMNS) - {"task"} - set(reader.fieldnames or ())
            if missing:
                raise QAFileError(
                    f"{path}:1: the column '{min(missing)}' is missing; {', '.join(COLUMNS)} are expected."
                )
            for row in reader:
                yield f"{path}:{reader.line_num}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise QAFileError(f"{path} cannot be read as CSV in UTF-8 ({error}).") from error


def write(items: Sequence[Item], out: Path, options: WriteOptions) -> Report:
    """`out/SPLIT.jsonl` (or .csv), images/ and masks/: a row for each first turn."""
    report = Report()
    rows: dict[str, list[dict[str, str]]] = {}
    names, images, masks = Shelf(out, ""), dict[Path, str](), dict[tuple[Path, tuple[Target, ...]], str]()
    for item, turn in first_turns(pictures(items, report), report):
        if not turn.question.strip():
            report.dropped["empty questions"] += 1
            continue
        conversation = item.conversation
        if item.image not in images:
            images[item.image] = f"images/{names.name(item.image.stem)}{item.image.suffix.lower()}"
            copy_picture(item.image, out / images[item.image])
        key = (item.image, turn.targets)
        if turn.targets and key not in masks:
            label = "+".join(turn.targets[0].label.split()) if len(turn.targets) == 1 else "targets"
            masks[key] = _free(f"{Path(images[item.image]).stem}_{label}.png", masks.values())
            union = np.logical_or.reduce([item.target_mask(target) for target in turn.targets])
            save_binary(union, out / masks[key])
        if len(turn.targets) > 1:
            report.dropped["targets joined into one mask"] += len(turn.targets)
        if turn.absent:
            report.dropped["names of absent structures"] += len(turn.absent)
        row = {
            "question": turn.question,
            "answer": plain(turn.answer),
            "image_path": images[item.image],
            "mask_path": masks.get(key, ""),
            "dataset": conversation.dataset + ("" if turn.targets else NEGATIVE),
            "task": TASKS.get(turn.kind, "referring"),
        }
        rows.setdefault(conversation.split, []).append(row)
        report.count += 1
    for split, members in rows.items():
        _write_table(out / f"{split}.{options.table}", members)
    return report


def _free(name: str, taken: Iterable[str]) -> str:
    """masks/NAME, or masks/2/NAME, masks/3/NAME, … where that is taken: the name itself says the target."""
    file, number = f"masks/{name}", 1
    while file in taken:
        number += 1
        file = f"masks/{number}/{name}"
    return file


def _write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".csv":
            table = csv.DictWriter(stream, COLUMNS)
            table.writeheader()
            table.writerows(rows)
        else:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
