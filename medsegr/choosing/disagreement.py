"""Where a model contradicts itself: text against masks, and two ways of asking for the same. Pure functions of replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Said:
    """One reply: its text, the masks [H, W] bool by label (several of one label are one), and structures that the text means to
    outline without a mask."""

    text: str
    masks: dict[str, NDArray[np.bool_]]
    undrawn: tuple[str, ...] = ()


def said(reply: Any) -> Said:
    """What a predictor's reply (`PredictorLike`) says, in the form of this module."""
    masks: dict[str, NDArray[np.bool_]] = {}
    for finding in reply.findings:
        mask = np.asarray(finding.mask, dtype=np.bool_)
        masks[finding.label] = masks[finding.label] | mask if finding.label in masks else mask
    return Said(str(reply.text), masks, tuple(getattr(reply, "undrawn", ())))


def text_against_masks(replies: Sequence[Said]) -> tuple[float, str]:
    """1 and a clause for the first reply whose text names what no mask shows, or whose mask shows what the text does not name;
    else 0 and ""."""
    for reply in replies:
        if reply.undrawn:
            return 1.0, f"an answer names {reply.undrawn[0]} and its outline came out empty"
        for label in reply.masks:
            if label.lower() not in reply.text.lower():
                return 1.0, f"{label} was outlined and the answer does not name it"
    return 0.0, ""


def answer_against_overview(target: str, reply: Said, chance: float) -> tuple[float, str]:
    """How far the reply to a question for `target` by name contradicts the probability that the image shows it: 0 where they
    agree, 1 where a sure overview is contradicted."""
    outlined = target in reply.masks
    gap = max(0.0, 1 - 2 * chance) if outlined else max(0.0, 2 * chance - 1)
    if gap == 0.0:
        return 0.0, ""
    sure = f"at first glance it is {chance:.0%} likely to be there"
    return gap, f"{target} was {'outlined' if outlined else 'not outlined'} when asked for, though {sure}"


def paraphrases(target: str, one: Said, other: Said) -> tuple[float, str]:
    """1 - Dice of the masks of `target` in the replies to two ways of asking for it; two that both lack it agree."""
    first, second = one.masks.get(target), other.masks.get(target)
    if first is None and second is None:
        return 0.0, ""
    if first is None or second is None:
        return 1.0, f"{target} was outlined for one way of asking and not for another"
    total = int(first.sum()) + int(second.sum())
    dice = 2 * int((first & second).sum()) / total if total else 1.0
    return 1 - dice, f"two ways of asking for {target} gave outlines that overlap with Dice {dice:.2f}"
