"""The MedSeg-QA record: one conversation about one image, as frozen dataclasses that go to JSON and back.

Everything that reads or writes conversations uses these classes; nothing here touches the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from medsegr.errors import QAFileError

Kind = Literal[
    "explicit", "implicit", "multi", "all", "absent_same_set", "absent_elsewhere",
    "comparison", "count", "side", "why", "neighbour",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)
SPLITS = ("train", "val", "test")
MODALITIES = ("CT", "MR", "XR", "US", "FUNDUS", "DERM", "PHOTO", "MICRO")
LICENCE_CLASSES = ("permissive", "noncommercial", "research")
REVIEW_STATES = ("auto", "accepted", "edited", "rejected")


@dataclass(frozen=True)
class Target:
    """One mask that an answer points at: the union of `value` in the label image `mask` (path relative to the
    file)."""

    label: str
    phrase: str
    mask: str
    value: tuple[int, ...]


@dataclass(frozen=True)
class Turn:
    """A question and its answer. `fact` is the id of the knowledge base fact that the question was made from;
    `absent` names the structures that the question asked for and the image does not show."""

    question: str
    answer: str
    targets: tuple[Target, ...]
    kind: str = "explicit"
    fact: str | None = None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Review:
    """What a physician said about a conversation."""

    status: str = "auto"
    reviewer: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Slice:
    """A 2-D slice of a volume: array axis and index, both from 0."""

    axis: int
    index: int


@dataclass(frozen=True)
class Conversation:
    """One line of a MedSeg-QA file. `image` and every `mask` are relative to the file's folder."""

    id: str
    image: str
    modality: str
    dataset: str
    patient_id: str
    split: str
    turns: tuple[Turn, ...]
    licence: str = ""
    licence_class: str = "research"
    spacing_mm: tuple[float, ...] | None = None
    review: Review = field(default_factory=Review)
    slice: Slice | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; optional fields without a value are left out."""
        record: dict[str, Any] = {
            "id": self.id,
            "image": self.image,
            "modality": self.modality,
            "dataset": self.dataset,
            "patient_id": self.patient_id,
            "split": self.split,
        }
        if self.spacing_mm is not None:
            record["spacing_mm"] = list(self.spacing_mm)
        if self.slice is not None:
            record["slice"] = asdict(self.slice)
        record["turns"] = [_turn_json(turn) for turn in self.turns]
        record |= {
            "licence": self.licence,
            "licence_class": self.licence_class,
            "review": asdict(self.review),
        }
        return record

    @classmethod
    def from_json(cls, record: object) -> Conversation:
        """The conversation of a decoded JSON line; raises `QAFileError` naming the field that is wrong."""
        row = _mapping(record, "a conversation")
        turns = _list(row, "turns")
        if not turns:
            raise QAFileError("'turns' is empty; expected at least one question with its answer.")
        return cls(
            id=_text(row, "id"),
            image=_text(row, "image"),
            modality=_choice(row, "modality", MODALITIES),
            dataset=_text(row, "dataset"),
            patient_id=_text(row, "patient_id"),
            split=_choice(row, "split", SPLITS),
            turns=tuple(_turn(turn, f"turns[{n}]") for n, turn in enumerate(turns)),
            licence=_text(row, "licence", default=""),
            licence_class=_choice(row, "licence_class", LICENCE_CLASSES, default="research"),
            spacing_mm=_spacing(row.get("spacing_mm")),
            review=_review(row.get("review")),
            slice=_slice(row.get("slice")),
        )


def _turn_json(turn: Turn) -> dict[str, Any]:
    targets = [
        {
            "label": t.label,
            "phrase": t.phrase,
            "mask": t.mask,
            "value": t.value[0] if len(t.value) == 1 else list(t.value),
        }
        for t in turn.targets
    ]
    return {
        "question": turn.question,
        "answer": turn.answer,
        "targets": targets,
        "kind": turn.kind,
        "fact": turn.fact,
        "absent": list(turn.absent),
    }


def _turn(record: object, where: str) -> Turn:
    row = _mapping(record, where)
    targets = tuple(_target(t, f"{where}.targets[{n}]") for n, t in enumerate(_list(row, "targets", where)))
    guess = "absent_same_set" if not targets else "explicit" if len(targets) == 1 else "multi"
    fact = row.get("fact")
    if fact is not None and not isinstance(fact, str):
        raise QAFileError(f"'{where}.fact' is {fact!r}; expected the id of a fact or null.")
    absent = row.get("absent", [])
    if not isinstance(absent, list) or not all(isinstance(name, str) for name in absent):
        raise QAFileError(f"'{where}.absent' is {absent!r}; expected a list of structure names.")
    return Turn(
        question=_text(row, "question", where, empty=True),
        answer=_text(row, "answer", where),
        targets=targets,
        kind=_choice(row, "kind", KINDS, where, default=guess),
        fact=fact,
        absent=tuple(absent),
    )


def _target(record: object, where: str) -> Target:
    row = _mapping(record, where)
    value = row.get("value")
    values: list[Any] = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values):
        raise QAFileError(f"'{where}.value' is {value!r}; expected a positive integer or a list of them.")
    return Target(
        _text(row, "label", where), _text(row, "phrase", where), _text(row, "mask", where), tuple(values)
    )


def _spacing(value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) in {2, 3} and all(_is_number(v) and v > 0 for v in value):
        return tuple(float(v) for v in value)
    raise QAFileError(f"'spacing_mm' is {value!r}; expected two or three positive numbers, or none.")


def _review(value: object) -> Review:
    if value is None:
        return Review()
    row = _mapping(value, "review")
    for key in ("reviewer", "note"):
        if row.get(key) is not None and not isinstance(row[key], str):
            raise QAFileError(f"'review.{key}' is {row[key]!r}; expected text or null.")
    return Review(_choice(row, "status", REVIEW_STATES, "review"), row.get("reviewer"), row.get("note"))


def _slice(value: object) -> Slice | None:
    if value is None:
        return None
    row = _mapping(value, "slice")
    axis, index = row.get("axis"), row.get("index")
    if not isinstance(axis, int) or not isinstance(index, int) or axis not in {0, 1, 2} or index < 0:
        raise QAFileError(f"'slice' is {dict(row)!r}; expected an axis of 0, 1 or 2 and an index from 0.")
    return Slice(axis, index)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise QAFileError(f"{where} is {type(value).__name__}; expected a JSON object.")
    return value


def _list(row: Mapping[str, Any], key: str, where: str = "") -> list[Any]:
    value = row.get(key)
    if not isinstance(value, list):
        raise QAFileError(f"'{_path(where, key)}' is {_shown(row, key)}; expected a list.")
    return value


def _text(
    row: Mapping[str, Any], key: str, where: str = "", default: str | None = None, empty: bool = False
) -> str:
    value = row.get(key, default)
    if not isinstance(value, str) or (not value.strip() and not empty and default is None):
        raise QAFileError(f"'{_path(where, key)}' is {_shown(row, key)}; expected text.")
    return value


def _choice(
    row: Mapping[str, Any], key: str, allowed: tuple[str, ...], where: str = "", default: str | None = None
) -> str:
    value = row.get(key, default)
    if value not in allowed:
        raise QAFileError(
            f"'{_path(where, key)}' is {_shown(row, key)}; expected one of {', '.join(allowed)}."
        )
    return str(value)


def _path(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _shown(row: Mapping[str, Any], key: str) -> str:
    return repr(row[key])[:80] if key in row else "missing"
