"""What a language model must reply: JSON of a fixed shape and nothing else, in a code fence at most."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from medsegr.errors import MedSegRError

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=600)]
STEPS = ("observe", "reason", "segment", "follow_up")
_FENCED = re.compile(r"\A```[A-Za-z]*\s*\n(.*?)\n?\s*```\Z", re.DOTALL)
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


class BadReply(MedSegRError):
    """A reply is no JSON of the expected shape."""


class Reply(BaseModel):
    """Base: no unknown keys, no conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Descriptions(Reply):
    """What the target is like, and where it lies; neither names it."""

    attribute: Text
    location: Text


class Exchange(Reply):
    """A question and its answer."""

    question: Text
    answer: Text


class Step(Exchange):
    """One turn of a dialogue."""

    step: Literal["observe", "reason", "segment", "follow_up"]


class Dialogue(Reply):
    """The four turns of a dialogue in their order."""

    turns: tuple[Step, ...]

    @model_validator(mode="after")
    def _in_order(self) -> Dialogue:
        found = tuple(turn.step for turn in self.turns)
        if found != STEPS:
            raise ValueError(f"the steps are {', '.join(found) or 'none'}; expected {', '.join(STEPS)}")
        return self


class Verdict(Reply):
    """The second pass: keep, drop, or revise with all turns rewritten."""

    verdict: Literal["keep", "revise", "drop"]
    reason: Text
    turns: tuple[Exchange, ...] = ()

    @model_validator(mode="after")
    def _has_turns(self) -> Verdict:
        if (self.verdict == "revise") != bool(self.turns):
            raise ValueError("turns go with the verdict revise, and only with it")
        return self


R = TypeVar("R", bound=Reply)


def parse_reply(text: str, shape: type[R]) -> R:
    """The reply of one step; a code fence and a leading <think> part are taken off. Raises `BadReply` saying what is wrong."""
    body = _THOUGHT.sub("", text).strip()
    if fenced := _FENCED.match(body):
        body = fenced.group(1)
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BadReply(
            f"the reply is not the JSON asked for: {f'{place}: ' if place else ''}{first['msg']}"
        ) from error
