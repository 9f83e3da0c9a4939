"""One answered and scored question, and its row in `per_case.csv`: what is read back equals what was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, get_type_hints

ABSENT = ("absent_same_set", "absent_elsewhere")


@dataclass(frozen=True)
class Case:
    """One answered turn. None: not applicable.

    dice, iou, intersection, union compare the union of all masks with the union of the targets, in pixels; matched is the
    mean over the targets of the Dice of the finding with the target's label. emitted counts the `[SEG]` tokens, also those
    whose mask came out empty; drawn those with a mask. confidence is the mean of the findings' confidences, 0 without any.
    named: the answer's phrases are exactly the targets' labels. chose: see `chose_target`; None where the image has no
    second, disjoint target. nsd, hd95 (in `unit`) are for one target that is present. places_truth, places_drawn: share of
    the side and position words that the true and the drawn mask confirm. reason: the stated reason is known of the target.
    measured: the comparison, count or side that the answer states is that of the true masks (of more than 5 pieces, a fifth may
    be missed). listed: F1 of the phrases against the targets' labels, for questions about everything. wording is 1 for the
    question of the file, 2 and more for the same question in other words. mask: the drawn mask's
    picture, relative to the run's folder; empty where nothing was drawn. slice: "axis:index" of a slice of a volume, else empty.
    """

    conversation: str
    dataset: str
    modality: str
    patient_id: str
    image: str
    kind: str
    turn: int
    target: str
    fact: str
    answer: str
    emitted: int
    expected: int
    empty: bool
    dice: float
    iou: float
    confidence: float
    named: bool
    chose: bool | None
    wording: int = 1
    question: str = ""
    reference: str = ""
    held_out: bool = False
    drawn: int = 0
    intersection: int = 0
    union: int = 0
    matched: float | None = None
    nsd: float | None = None
    hd95: float | None = None
    unit: str = ""
    token_f1: float = 0.0
    rouge_l: float = 0.0
    bleu: float = 0.0
    places_truth: float | None = None
    places_drawn: float | None = None
    reason: bool | None = None
    measured: bool | None = None
    listed: float | None = None
    mask: str = ""
    slice: str = ""

    @property
    def absent(self) -> bool:
        """Whether the right answer is "not present"."""
        return self.kind in ABSENT

    @property
    def patient(self) -> tuple[str, str]:
        """Set and patient: what the bootstrap draws."""
        return self.dataset, self.patient_id


COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(Case))


def as_row(case: Case) -> dict[str, Any]:
    """A CSV row: one line of text in every cell, None as an empty cell."""
    return {name: _cell(getattr(case, name)) for name in COLUMNS}


def from_row(row: Mapping[str, str]) -> Case:
    """The case of a row; raises `ValueError` or `KeyError` if a cell is not what `as_row` writes."""
    hints = _hints()
    values: dict[str, Any] = {name: _value(row[name], hints[name]) for name in COLUMNS}
    return Case(**values)


@lru_cache(maxsize=1)
def _hints() -> dict[str, Any]:
    return get_type_hints(Case)


def _cell(value: object) -> object:
    if isinstance(value, str):
        return " ".join(value.split())
    return "" if value is None else value


def _value(text: str, hint: object) -> object:
    if hint is str:
        return text
    if hint is int:
        return int(text)
    if hint is float:
        return float(text)
    if text == "" and hint is not bool:
        return None
    if hint in (bool, bool | None):
        return {"True": True, "False": False}[text]
    return float(text)
