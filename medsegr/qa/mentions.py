"""Which structures a text means by a name: a "white blood cell nucleus" is no white blood cell, a "brain tumour" no "tumour"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from medsegr.qa.facts import Concept

SIDES = re.compile(r"(?<!\w)(?:left|right|other)(?!\w)", re.IGNORECASE)
"""Words of a side. Where a text has two of them, one name may speak of both sides: "the left and the right kidney"."""


def mentioned(text: str, concepts: Iterable[Concept]) -> tuple[str, ...]:
    """The names of those concepts that `text` names, in the order of `concepts`. What stands inside a longer name of another
    concept is not meant, unless the text speaks of two sides."""
    places = [(concept.name, span) for concept in concepts for span in concept.places(text)]
    if len({side.casefold() for side in SIDES.findall(text)}) < 2:
        places = [(name, span) for name, span in places if not any(_inside(span, of) for _, of in places)]
    return tuple(dict.fromkeys(name for name, _ in places))


def _inside(span: tuple[int, int], other: tuple[int, int]) -> bool:
    return span != other and other[0] <= span[0] and span[1] <= other[1]
