"""How structures are asked for, by name, and what the clinician tells of a new one."""

from __future__ import annotations

import random
from collections.abc import Sequence

from medsegr.qa import phrasing

ONE = ("Outline the {}.", "Where is the {}?", "Please mark the {}.", "Can you segment the {} in this image?")
SEVERAL = ("Outline {}.", "Please mark {}.", "Where are {}?")
MEASURED = ("Show me the {}.", "Trace the border of the {}.", "I need a mask of the {}.")
"""Other words than those of the stream: what is measured is not the wording."""


def question(names: Sequence[str], seed: str) -> str:
    """The clinician's question about one structure or several, in words that `seed` decides."""
    rng = random.Random(seed)
    if len(names) == 1:
        return rng.choice(ONE).format(names[0])
    return rng.choice(SEVERAL).format(phrasing.joined([f"the {name}" for name in names]))


def measured_question(name: str, seed: str) -> str:
    """The question by which learning is measured."""
    return random.Random(seed).choice(MEASURED).format(name)


def knowledge(name: str) -> dict[str, list[str]]:
    """What a clinician enters about a new label: what it is called, and how one asks for it. No facts."""
    return {"names": [name], "questions": [template.format(name) for template in ONE], "facts": []}
