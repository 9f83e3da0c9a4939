"""What clients may send with a question, with limits; every violation becomes one sentence that never quotes
the input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from medsegr.web.errors import Refusal

MAX_QUESTION = 2000
MAX_ANSWER = 8000
MAX_HISTORY = 40
MAX_POINTS = 64
MAX_BODY = 1024 * 1024
SLICES = re.compile(r"(\d{1,6})(?:\s*-\s*(\d{1,6}))?")
EXTENSIONS = (".nrrd", ".nii.gz", ".nii", ".png")


class TooLongError(ValueError):
    """A text exceeds its limit (HTTP 413 instead of 422)."""


def _text(limit: int, name: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise ValueError(f"{name} must be text, found {type(value).__name__}.")
        value = value.strip()
        if len(value) > limit:
            raise TooLongError(f"{name} has {len(value)} characters; at most {limit} are accepted.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{name} must be text, found half of a character (a lone surrogate).")
        return value

    return BeforeValidator(check)


class HistoryTurn(BaseModel):
    """An earlier question and its answer."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    question: Annotated[str, _text(MAX_QUESTION, "A question in `history`")]
    answer: Annotated[str, _text(MAX_ANSWER, "An answer in `history`")]


class AskOptions(BaseModel):
    """The `params` of `/infer` and most of the body of `/medsegr/ask`. Unknown keys, `image`, `model` and
    `device` are ignored.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    question: Annotated[str, _text(MAX_QUESTION, "`question`")] = Field(
        "", description="Empty: find every known structure."
    )
    history: tuple[HistoryTurn, ...] = ()
    slices: str = Field(
        "all",
        description='For volumes: "all", one index such as "12", a range such as "10-20", or "this": the slice of `instance`.',
    )
    instance: Annotated[str, _text(64, "`instance`")] = Field(
        "", description="SOPInstanceUID of an image in the DICOM series: its stack is asked about."
    )
    frame: int | None = Field(
        None, ge=1, le=1_000_000, description="Which frame of `instance`, counted from 1."
    )
    points: tuple[tuple[float, float, int], ...] | None = Field(
        None, description="[[row, column, 1 inside | 0 outside], ...]"
    )
    box: tuple[float, float, float, float] | None = Field(None, description="[row0, column0, row1, column1]")
    max_new_tokens: int | None = Field(None, ge=1, le=512)
    client_id: Annotated[str, _text(200, "`client_id`")] = ""
    result_extension: str | None = None
    save_label: bool = False
    label_tag: str = Field("original", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$")

    @field_validator("history", mode="before")
    @classmethod
    def _history(cls, value: Any) -> Any:
        if value is None or value == "":
            return ()
        if isinstance(value, str):  # stock clients can only send text
            value = _load(value, "`history`")
        if not isinstance(value, list | tuple):
            raise ValueError('`history` must be a list of {"question", "answer"} objects.')
        if len(value) > MAX_HISTORY:
            raise TooLongError(f"`history` has {len(value)} turns; at most {MAX_HISTORY} are accepted.")
        return value

    @field_validator("slices", mode="before")
    @classmethod
    def _slices(cls, value: Any) -> str:
        text = "all" if value is None else str(value).strip().lower() or "all"
        found = SLICES.fullmatch(text)
        if isinstance(value, bool) or (text not in {"all", "this"} and found is None):
            raise ValueError(
                '`slices` must be "all", "this", one index such as "12", or a range such as "10-20".'
            )
        if found and found[2] and int(found[2]) < int(found[1]):
            raise ValueError("`slices` must be a range from the lower index to the higher one.")
        return text

    @field_validator("frame", mode="before")
    @classmethod
    def _frame(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("points", mode="before")
    @classmethod
    def _points(cls, value: Any) -> Any:
        if value is None or value == "" or value == []:
            return None
        if not isinstance(value, list | tuple) or len(value) > MAX_POINTS:
            raise ValueError(
                f"`points` must be a list of at most {MAX_POINTS} entries [row, column, 1 or 0]."
            )
        for point in value:
            if (
                not isinstance(point, list | tuple)
                or len(point) != 3
                or point[2] not in (0, 1)
                or not _numbers(point)
            ):
                raise ValueError(
                    "`points` must be a list of [row, column, label] with label 1 (inside) or 0 (outside)."
                )
        return value

    @field_validator("box", mode="before")
    @classmethod
    def _box(cls, value: Any) -> Any:
        if value is None or value == "" or value == []:
            return None
        ordered = (
            isinstance(value, list | tuple)
            and len(value) == 4
            and _numbers(value)
            and value[0] < value[2]
            and value[1] < value[3]
        )
        if not ordered:
            raise ValueError(
                "`box` must be [row0, column0, row1, column1] with row0 < row1 and column0 < column1."
            )
        return value

    @field_validator("result_extension", mode="before")
    @classmethod
    def _extension(cls, value: Any) -> str | None:
        if value is None or value == "":
            return None
        text = "." + str(value).lower().lstrip(".")
        if text not in EXTENSIONS:
            raise ValueError(f"`result_extension` must be one of {', '.join(EXTENSIONS)}.")
        return text

    @property
    def slice_range(self) -> tuple[int, int] | None:
        """(first, last) slice index, both included, or None for all and "this"."""
        found = SLICES.fullmatch(self.slices)
        return (int(found[1]), int(found[2] or found[1])) if found else None

    @property
    def turns(self) -> tuple[dict[str, str], ...]:
        """The history as plain dictionaries."""
        return tuple({"question": t.question, "answer": t.answer} for t in self.history)


class AskBody(AskOptions):
    """The JSON body of `POST /medsegr/ask`."""

    model: Annotated[str, _text(100, "`model`")] = ""
    image: Annotated[str, _text(1000, "`image`")] = ""
    session_id: Annotated[str, _text(100, "`session_id`")] = ""


Model = TypeVar("Model", bound=BaseModel)


def parse_object(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object from a request; raises `Refusal` 400."""
    try:
        data = _load(text, what)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    if not isinstance(data, dict):
        raise Refusal(400, f"{what} must be a JSON object, found {type(data).__name__}.")
    return data


def parse(model: type[Model], data: Mapping[str, Any]) -> Model:
    """Validate `data`; raises `Refusal` 413 for texts that are too long and 422 for everything else."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        raise Refusal(413 if isinstance(cause, TooLongError) else 422, str(cause))
    field = ".".join(str(part) for part in first["loc"])
    raise Refusal(422, f"`{field}` is not usable: {first['msg'][:1].lower()}{first['msg'][1:]}.")


def _load(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{what} must be valid JSON.") from None


def _numbers(values: Any) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) and -1e9 < v < 1e9 for v in values)
