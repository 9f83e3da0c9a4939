"""What every reader and writer shares: options, reports, fields of foreign records, and the sentences of formats without any."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from medsegr.errors import QAFileError
from medsegr.qa.facts import KnowledgeBase, load_knowledge
from medsegr.qa.formats.labels import bare_name, is_nifti, target_mask
from medsegr.qa.reader import numbered_lines, parse_line
from medsegr.qa.schema import MODALITIES, SPLITS, Conversation, Target, Turn

SEG = "[SEG]"
FOREIGN_MODALITIES = {
    "mri": "MR", "x-ray": "XR", "xray": "XR", "mammography": "XR", "ultrasound": "US", "fundus": "FUNDUS",
    "dermoscopy": "DERM", "pathology": "MICRO", "microscopy": "MICRO", "endoscope": "PHOTO",
    "endoscopy": "PHOTO", "photograph": "PHOTO",
}  # fmt: skip


@dataclass(frozen=True)
class ReadOptions:
    """What a format does not say itself. `label` names the target where no name is given; `patient_pattern` finds the patient
    in an image's name (without it each image is a patient of its own); `images` is the folder that file names refer to."""

    modality: str | None = None
    dataset: str | None = None
    split: str | None = None
    licence: str = ""
    licence_class: str = "research"
    label: str = "target"
    patient_pattern: str | None = None
    images: Path | None = None

    def patient(self, name: str, image: str) -> str:
        """The patient that an image's `name` tells, else the copied `image` itself, whose name is unique.

        Raises `QAFileError` for a pattern that is no regular expression.
        """
        alone = bare_name(image)
        if self.patient_pattern is None:
            return alone
        try:
            found = re.search(self.patient_pattern, name)
        except re.error as error:
            raise QAFileError(
                f"The patient pattern '{self.patient_pattern}' is no regular expression: {error}."
            ) from error
        return found.group(found.re.groups and 1) if found else alone


@dataclass(frozen=True)
class WriteOptions:
    """Choices of single writers: `rle` of COCO (compressed or uncompressed), `table` of Med-ReasonSeg (jsonl or csv)."""

    rle: str = "compressed"
    table: str = "jsonl"


@dataclass
class Report:
    """How much was converted, and what the other side could not carry: a phrase such as "follow-up turns" to a number."""

    count: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def sentence(self) -> str:
        """What was dropped, in one line; empty where nothing was."""
        return ", ".join(f"{number} {what}" for what, number in sorted(self.dropped.items()))


@dataclass(frozen=True)
class Item:
    """One conversation with its place (`file:line`, for errors) and the folder that its paths are relative to."""

    where: str
    root: Path
    conversation: Conversation

    @property
    def image(self) -> Path:
        """The image's file or folder."""
        return self.root / self.conversation.image

    def target_mask(self, target: Target) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The target's mask; raises `QAFileError` with file and line."""
        return target_mask(self.root, target, self.where)


def read_items(path: Path) -> Iterator[Item]:
    """Conversations of a MedSeg-QA file with their lines; raises `QAFileError`, also for an image that is not there."""
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        item = Item(where, path.parent, parse_line(line, where))
        if not item.image.exists():
            raise QAFileError(f"{where}: image '{item.conversation.image}' does not exist.")
        yield item


def pictures(items: Sequence[Item], report: Report) -> list[Item]:
    """Conversations about pictures; those about volumes are counted as dropped."""
    kept = [i for i in items if i.image.is_file() and not is_nifti(i.image) and i.image.suffix != ".dcm"]
    if len(kept) < len(items):
        report.dropped["conversations about volumes"] += len(items) - len(kept)
    return kept


def first_turns(items: Sequence[Item], report: Report) -> list[tuple[Item, Turn]]:
    """The first turn of every conversation: a follow-up question cannot stand alone; follow-ups are counted as dropped."""
    turns = [(item, item.conversation.turns[0]) for item in items]
    if more := sum(len(item.conversation.turns) - 1 for item in items):
        report.dropped["follow-up turns"] += more
    return turns


def by_image(items: Sequence[Item]) -> dict[Path, list[Item]]:
    """Conversations of each image, in order."""
    grouped: dict[Path, list[Item]] = {}
    for item in items:
        grouped.setdefault(item.image, []).append(item)
    return grouped


def image_targets(items: Sequence[Item], report: Report) -> dict[str, Target]:
    """Every target of one image by label, whatever the questions were; questions without a target are counted as dropped.

    Raises `QAFileError` where one label has two different masks.
    """
    found: dict[str, Target] = {}
    for item in items:
        for turn in item.conversation.turns:
            if not turn.targets:
                report.dropped["questions without a target"] += 1
            for target in turn.targets:
                first = found.setdefault(target.label, target)
                same = (first.mask, first.value) == (target.mask, target.value)
                if not same and not np.array_equal(item.target_mask(first), item.target_mask(target)):
                    raise QAFileError(
                        f"{item.where}: '{target.label}' has another mask than in an earlier line about "
                        f"'{item.conversation.image}'; one mask for each label of an image is expected."
                    )
    return found


def modality(options: ReadOptions, said: object, where: str) -> str:
    """The modality in this project's words: the option, else what the format says; raises `QAFileError` without either."""
    if options.modality is not None:
        return options.modality
    word = str(said or "").strip()
    name = FOREIGN_MODALITIES.get(word.lower(), word.upper())
    if word.lower().startswith("mri"):
        name = "MR"
    if name not in MODALITIES:
        known = ", ".join(MODALITIES)
        shown = f"modality '{word}' is not known" if word else "no modality is given"
        raise QAFileError(f"{where}: {shown}; name one of {known} with --modality.")
    return name


def split_of(name: str, options: ReadOptions) -> str:
    """The split: the option, else what a file or folder is called, else train."""
    return options.split or (name if name in SPLITS else "train")


@cache
def shipped_knowledge() -> KnowledgeBase:
    """The shipped knowledge base, read once."""
    return load_knowledge()


def kind_of(question: str, label: str) -> str:
    """explicit where a question gives its target's name away, else implicit."""
    knowledge = shipped_knowledge()
    leaks = knowledge[label].leak(question) if label in knowledge else label.lower() in question.lower()
    return "explicit" if leaks else "implicit"


def load_json(path: Path, encodings: Sequence[str] = ("utf-8",)) -> Any:
    """A JSON document; raises `QAFileError` with file and line."""
    for encoding in encodings:
        try:
            return json.loads(path.read_text(encoding=encoding))
        except json.JSONDecodeError as error:
            raise QAFileError(f"{path}:{error.lineno}: not valid JSON ({error.msg}).") from error
        except UnicodeDecodeError:
            continue
        except OSError as error:
            raise QAFileError(
                f"{path} cannot be read ({error.strerror}); a JSON file is expected."
            ) from error
    raise QAFileError(f"{path} is not text in {' or '.join(encodings)}; a JSON file is expected.")


def json_line(line: str, where: str) -> Mapping[str, Any]:
    """The object of one line of JSON Lines; raises `QAFileError`."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise QAFileError(f"{where}: not valid JSON ({error}); one object a line is expected.") from error
    return mapping(row, where)


def mapping(value: object, where: str) -> Mapping[str, Any]:
    """`value` as an object; raises `QAFileError`."""
    if not isinstance(value, Mapping):
        raise QAFileError(f"{where}: found {type(value).__name__}; a JSON object is expected.")
    return value


def text(row: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    """A field that holds text; raises `QAFileError` where it is missing, empty or something else."""
    value = row.get(key, default)
    if not isinstance(value, str) or (not value.strip() and default is None):
        shown = repr(value)[:80] if key in row else "missing"
        raise QAFileError(f"{where}: '{key}' is {shown}; text is expected.")
    return value


def outlined(labels: Sequence[str]) -> str:
    """An answer for formats that have none: each label marked once, in order."""
    return f"Outlined here: {', '.join(f'<p>{label}</p> {SEG}' for label in labels)}."


def not_visible(label: str) -> str:
    """An answer for formats that have none, where nothing is to be outlined."""
    return f"No {label} is visible here."


def marked_up(answer: str, phrase: str) -> str:
    """An answer with one `<p>phrase</p> [SEG]`: the mark is set around the phrase before a lone [SEG], or put in."""
    if answer.count(SEG) != 1:
        bare = answer.replace(SEG, "").strip()
        return f"{bare} <p>{phrase}</p> {SEG}".strip() if bare else outlined([phrase])
    before, after = answer.split(SEG)
    before = before.rstrip()
    if before.endswith("</p>"):
        return f"{before} {SEG}{after}"
    head = before[: -len(phrase)] if before.lower().endswith(phrase.lower()) else f"{before} "
    return f"{head.lstrip()}<p>{phrase}</p> {SEG}{after}"


def plain(answer: str) -> str:
    """An answer without `<p>` and `</p>`; [SEG] stays."""
    return re.sub(r"</?p>", "", answer)
