"""What an answer consists of: the text, and a finding for each structure that it outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from medsegr.model.tokens import phrases

UNNAMED = "finding"
"""Label of a mask to which the answer gives no phrase."""


@dataclass(frozen=True)
class Finding:
    """One structure of a reply. `mask` is bool on the input's own grid, [H, W] or [X, Y, Z]; `confidence` in [0, 1] estimates
    the probability that the mask's Dice against an expert is at least 0.7. `scores`: what it was made of in a picture, the mask
    decoder's quality logit and the log-probability of the words that led to the mask."""

    label: str
    phrase: str
    mask: NDArray[np.bool_]
    confidence: float
    scores: tuple[float, float] = (0.0, 0.0)


class Outcome(StrEnum):
    """What a reply amounts to."""

    FOUND = "found"
    NOT_PRESENT = "not_present"
    NOT_TRAINED = "not_trained"
    NOT_DRAWN = "not_drawn"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Measured:
    """What the masks say. `kind`: comparison, count, side or place. `value`: the larger structure's name or "equal"; the number;
    left, right or middle (of the image, for side and place). `text`: the sentence that says so."""

    kind: str
    value: str
    text: str


@dataclass(frozen=True)
class Reply:
    """Answer without markup, what was found (empty: see `outcome`) and where the time went, in milliseconds; `undrawn` are the
    structures that the model meant to outline and whose mask came out empty, `untrained` those that were asked for and that it
    never learnt (the text says so of both); `measured` is what the masks add, the text has its sentence."""

    text: str
    findings: tuple[Finding, ...]
    latencies_ms: dict[str, float]
    undrawn: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    measured: Measured | None = None
    foreign: bool = False  # the picture looks like nothing that the model was trained on

    @property
    def outcome(self) -> Outcome:
        """Found; else named and not drawn; else a foreign picture; else never learnt; else not present."""
        if self.findings:
            return Outcome.FOUND
        if self.undrawn:
            return Outcome.NOT_DRAWN
        if self.foreign:
            return Outcome.FOREIGN
        return Outcome.NOT_TRAINED if self.untrained else Outcome.NOT_PRESENT


def undrawn_phrases(marked: str, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Phrases with a `[SEG]` but without a finding, each once."""
    drawn = {f.phrase for f in findings}
    return tuple(dict.fromkeys(phrase or UNNAMED for phrase in phrases(marked) if phrase not in drawn))


def findings_of(
    marked: str,
    masks: NDArray[np.bool_],
    confidences: Sequence[float],
    scores: Sequence[tuple[float, float]] | None = None,
) -> tuple[Finding, ...]:
    """A finding for each `[SEG]` whose mask is not empty; `scores` of all of them, if known."""
    named = phrases(marked)
    raw = scores if scores is not None else [(0.0, 0.0)] * len(named)
    return tuple(
        Finding(phrase or UNNAMED, phrase, mask, float(confidence), score)
        for phrase, mask, confidence, score in zip(named, masks, confidences, raw, strict=True)
        if mask.any()
    )
