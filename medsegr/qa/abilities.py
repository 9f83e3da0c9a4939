"""Questions about what was found: comparisons, counts, sides, reasons and neighbours; wording and the fixed form of the answers.

An answer names the structures and never a number or a side: those are measured on the masks (`medsegr.measured`), so training
teaches which form a question asks for, not what came out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medsegr.qa import phrasing
from medsegr.qa.facts import Concept
from medsegr.qa.phrasing import marked

COMPARE = (
    "Which is larger, the {a} or the {b}?",
    "Is the {a} larger than the {b}?",
    "Compare the {a} with the {b}.",
    "Which one is bigger here: the {a} or the {b}?",
    "Which covers more of this {study}, the {a} or the {b}?",
    "Compare the size of the {a} and of the {b}.",
    "Is the {a} smaller than the {b}?",
    "Does the {a} take up more room than the {b}?",
)
COMPARE_PAIR = (
    "Which {one} is larger here?",
    "Which of the two {many} is bigger?",
    "Are the two {many} of equal size?",
    "Compare the left and the right {one}.",
    "Is the left {one} larger than the right one?",
    "Which {one} looks smaller in this {study}?",
)
COMPARE_FOLLOW = (
    "Which of the two is larger?",
    "Which one is bigger?",
    "Compare their sizes.",
    "And which is the smaller one?",
    "Are they the same size?",
)
COUNT = (
    "How many {names} are there?",
    "Count the {names}.",
    "How many {names} do you see in this {study}?",
    "What is the number of {names} here?",
    "How many separate {names} are there in this {study}?",
    "Tell me the number of {names}.",
)
COUNT_FOLLOW = ("How many are there?", "Count them.", "How many of them do you see?", "And how many is that?")
SIDE = (
    "On which side is the {name}?",
    "Is the {name} on the left or on the right?",
    "Which side of this {study} shows the {name}?",
    "Does the {name} lie left or right of the middle?",
    "Tell me the side of the {name}.",
    "Left or right: where is the {name}?",
)
SIDE_FOLLOW = (
    "Which side is that on?",
    "Left or right?",
    "On which side does it lie?",
    "Is that on the left?",
)
WHY = (
    "Why?",
    "Why that one?",
    "How do you know?",
    "What makes you say so?",
    "Explain that.",
    "Tell me more about it.",
    "What else is known about it?",
    "Give me a reason.",
)
BESIDE = {
    "below": (
        "And the one below it?",
        "What lies below it?",
        "And the structure right below?",
        "What do you see underneath it?",
        "Now the organ below it.",
    ),
    "above": (
        "And the one above it?",
        "What lies above it?",
        "And the structure right above?",
        "What do you see over it?",
        "Now the organ above it.",
    ),
    "left": (
        "And the one to the left of it in the image?",
        "What lies left of it in the picture?",
        "And its neighbour on the left of the image?",
    ),
    "right": (
        "And the one to the right of it in the image?",
        "What lies right of it in the picture?",
        "And its neighbour on the right of the image?",
    ),
}
COUNTED = {
    "adrenal glands": "adrenal glands",
    "benign breast tumour": "benign breast tumours",
    "blood vessel": "blood vessels",
    "brain tumour": "brain tumours",
    "breast tumour": "breast tumours",
    "cell nuclei": "cell nuclei",
    "foot ulcer": "foot ulcers",
    "intracranial hemorrhage": "intracranial hemorrhages",
    "kidneys": "kidneys",
    "lungs": "lungs",
    "malignant breast tumour": "malignant breast tumours",
    "multiple sclerosis lesion": "multiple sclerosis lesions",
    "nerve": "nerves",
    "skin lesion": "skin lesions",
    "wisdom teeth": "wisdom teeth",
}
"""Structures whose pieces lie apart and can be counted on a mask, with their plural."""
PAIRS = {
    "kidneys": ("kidney", "kidneys"),
    "lungs": ("lung", "lungs"),
    "adrenal glands": ("adrenal gland", "adrenal glands"),
}
"""Pairs whose left and right part may be asked about as "which kidney"."""
NEARER = 0.75
"""A neighbour is asked for only if it is nearer than this share of the distance to the next one in the same direction."""


@dataclass(frozen=True)
class Place:
    """A structure's centroid in one image, row and column in [0, 1], and its share of the image's area."""

    row: float
    column: float
    share: float = 0.0


def comparison_question(
    rng: random.Random, one: Concept, other: Concept, study: str, pair: str | None = None
) -> str:
    """Which of two is larger; `pair` names what both are parts of, asked for as such half of the time."""
    if pair in PAIRS and rng.random() < 0.5:
        singular, plural = PAIRS[pair]
        return rng.choice(COMPARE_PAIR).format(one=singular, many=plural, study=study)
    return rng.choice(COMPARE).format(a=one.name, b=other.name, study=study)


def comparison_answer(present: Sequence[Concept], absent: Sequence[Concept]) -> str:
    """The form that a comparison completes; where one of the two is absent there is nothing to compare."""
    if absent:
        return phrasing.multi_answer(present, absent)
    one, other = present
    return f"Comparing the {marked(one.name)} with the {marked(other.name)}."


def count_question(rng: random.Random, concept: Concept, study: str) -> str:
    """How many pieces there are of something that can be counted."""
    return rng.choice(COUNT).format(names=COUNTED[concept.name], study=study)


def count_answer(concept: Concept) -> str:
    """The form that a count completes."""
    return f"Counting the {marked(concept.name)}."


def side_question(rng: random.Random, concept: Concept, study: str) -> str:
    """Left or right."""
    return rng.choice(SIDE).format(name=concept.name, study=study)


def side_answer(concept: Concept) -> str:
    """The form that a place completes."""
    return f"Locating the {marked(concept.name)}."


def why_answer(concept: Concept, after_description: bool) -> str:
    """The reason after an answer: its first fact, or where it lies if the question was a description already."""
    if after_description or not concept.training_facts:
        return phrasing.explicit_answer(concept)
    return phrasing.implicit_answer(concept, concept.training_facts[0].text)


def neighbours(places: Mapping[str, Place], name: str) -> dict[str, str]:
    """Direction (below, above, left, right in the image) to the structure next to `name` there, where there is no doubt."""
    found = {}
    here = places[name]
    for direction, (axis, sign) in {
        "below": ("row", 1),
        "above": ("row", -1),
        "left": ("column", -1),
        "right": ("column", 1),
    }.items():
        ranked = []
        for other, place in places.items():
            down, across = place.row - here.row, place.column - here.column
            along, aside = (down, across) if axis == "row" else (across, down)
            if other != name and along * sign > abs(aside):
                ranked.append(((along**2 + aside**2) ** 0.5, other))
        ranked.sort()
        if ranked and (len(ranked) == 1 or ranked[0][0] < NEARER * ranked[1][0]):
            found[direction] = ranked[0][1]
    return found
