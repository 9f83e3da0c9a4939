"""Wording: question templates, the one exact form of every answer, and the name of a study.

Pure functions of names and facts. Questions vary; an answer is fixed by question and truth, so that a small
model can learn it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from medsegr.qa.facts import Concept

EXPLICIT = (
    "Where {be} the {name}?",
    "Outline the {name}.",
    "Segment the {name}.",
    "Show me the {name}.",
    "Can you find the {name}?",
    "Mark the {name} in this {study}.",
    "Please delineate the {name}.",
    "{Be} the {name} visible here?",
    "Highlight the {name}.",
    "I need a mask of the {name}.",
    "Find the {name} in this {study}.",
    "Draw the contour of the {name}.",
    "Do you see the {name}?",
    "The {name}, please.",
    "Point out the {name} on this {study}.",
    "In this {study}, where {be} the {name}?",
)
IMPLICIT = (
    "Which structure{s} here {fact}?",
    "Which structure{s} in this image {fact}?",
    "Outline the structure{s} that {fact}.",
    "Where {be} the structure{s} that {fact}?",
    "Show me the {one} that {fact}.",
    "Segment the {part} that {fact}.",
    "Can you mark the structure{s} that {fact}?",
    "I am looking for the structure{s} that {fact}.",
    "In this picture, {what} {fact}?",
    "Tell me {what} {fact}.",
    "Please delineate the {part} of this image that {fact}.",
    "Find the {one} that {fact}.",
    "Look at this image: which {part} {fact}?",
    "Draw the outline of the {one} that {fact}.",
    "Point out the structure{s} that {fact}, please.",
    "{Be} there {a}structure{s} here that {fact}? Outline {it}.",
)
MULTI = (
    "Outline {names}.",
    "Segment {names}.",
    "Show me {names}.",
    "Where are {names}?",
    "Mark {names} in this {study}.",
    "Please delineate {names}.",
    "I need masks of {names}.",
    "Can you find {names}?",
    "Highlight {names} on this {study}.",
    "Find {names} here.",
)
ALL = (
    "",
    "What can you see here?",
    "Outline every structure that you know.",
    "What is visible in this {study}?",
    "Segment everything you recognise.",
    "Which structures does this {study} show?",
    "Mark all the structures that you can find.",
    "Describe this image and outline what you see.",
)
FOLLOW_EXPLICIT = (
    "And the {name}?",
    "Now show the {name}.",
    "What about the {name}?",
    "Now the {name}, please.",
    "Next, outline the {name}.",
    "And where {be} the {name}?",
)
FOLLOW_IMPLICIT = (
    "Now the structure{s} that {fact}.",
    "Next, show the {one} that {fact}.",
    "And which structure{s} here {fact}?",
    "And the {one} that {fact}?",
    "Now mark the {part} that {fact}.",
)
FOLLOW_SIDE = (
    "Only the {side} one, please.",
    "Only the one on the {side}.",
    "Just the {side} one.",
    "Now only the one on the {side}, please.",
    "And the {side} one alone?",
)

STUDIES = {
    ("abdomen", "CT"): "abdominal CT",
    ("brain", "CT"): "head CT",
    ("brain", "MR"): "brain MR",
    ("breast", "US"): "breast ultrasound",
    ("breast", "XR"): "mammogram",
    ("cells", "MICRO"): "micrograph",
    ("chest", "XR"): "chest X-ray",
    ("eye", "FUNDUS"): "fundus photograph",
    ("fetus", "US"): "fetal ultrasound",
    ("foot", "PHOTO"): "foot photograph",
    ("heart", "MR"): "cardiac MR",
    ("heart", "US"): "cardiac ultrasound",
    ("jaw", "XR"): "dental X-ray",
    ("limb", "US"): "limb ultrasound",
    ("skin", "DERM"): "skin photograph",
    ("spine", "MR"): "spine MR",
}
MODALITY_NAMES = {
    "CT": "CT",
    "MR": "MR",
    "XR": "X-ray",
    "US": "ultrasound",
    "FUNDUS": "fundus photograph",
    "DERM": "photograph",
    "PHOTO": "photograph",
    "MICRO": "micrograph",
}
REGION_WORDS = {
    "abdomen": "abdominal",
    "heart": "cardiac",
    "fetus": "fetal",
    "jaw": "dental",
    "cells": "cell",
}


def study_name(region: str, modality: str) -> str:
    """How a person calls an image of this region and modality, such as "abdominal CT"."""
    known = STUDIES.get((region, modality))
    return known or f"{REGION_WORDS.get(region, region)} {MODALITY_NAMES.get(modality, 'image')}".strip()


def explicit_question(
    rng: random.Random, concept: Concept, study: str, follow: bool = False, name: str | None = None
) -> str:
    """Ask for a structure by name (or by `name`, a synonym of the same number)."""
    return _fill(
        rng.choice(FOLLOW_EXPLICIT if follow else EXPLICIT), concept, name=name or concept.name, study=study
    )


def implicit_question(rng: random.Random, concept: Concept, fact: str, follow: bool = False) -> str:
    """Ask for a structure by one of its facts, without naming it."""
    return _fill(rng.choice(FOLLOW_IMPLICIT if follow else IMPLICIT), concept, fact=fact)


def multi_question(rng: random.Random, concepts: Sequence[Concept], study: str) -> str:
    """Ask for two or three named structures at once."""
    return rng.choice(MULTI).format(names=joined([f"the {c.name}" for c in concepts]), study=study)


def all_question(rng: random.Random, study: str) -> str:
    """Ask for everything; the empty question means the same."""
    return rng.choice(ALL).format(study=study)


def side_question(rng: random.Random, side: str) -> str:
    """After a pair: ask for its left or right part only."""
    return rng.choice(FOLLOW_SIDE).format(side=side)


def explicit_answer(concept: Concept) -> str:
    """Answer to a named structure that is present."""
    return f"The {marked(concept.name)} {'lie' if concept.plural else 'lies'} {concept.location}."


def implicit_answer(concept: Concept, fact: str) -> str:
    """Answer to a described structure that is present."""
    return f"The {marked(concept.name)} {fact}."


def absent_answer(concept: Concept, study: str) -> str:
    """Answer to a structure that is not there."""
    return f"No {concept.name} {_be(concept)} visible in this {study}."


def multi_answer(present: Sequence[Concept], absent: Sequence[Concept]) -> str:
    """Answer to several named structures, of which at least one is present."""
    many = len(present) > 1 or present[0].plural
    text = f"{joined([f'the {marked(c.name)}' for c in present])} {'are' if many else 'is'} outlined"
    if absent:
        verb = "are" if len(absent) > 1 or absent[0].plural else "is"
        text += f"; {joined([f'no {c.name}' for c in absent])} {verb} visible"
    return f"{_upper(text)}."


def all_answer(present: Sequence[Concept], study: str) -> str:
    """Answer to the question for everything."""
    if not present:
        return f"No known structure is visible in this {study}."
    return f"Visible here: {joined([marked(c.name) for c in present])}."


def marked(phrase: str) -> str:
    """A phrase with its mask token."""
    return f"<p>{phrase}</p> [SEG]"


def joined(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _be(concept: Concept) -> str:
    return "are" if concept.plural else "is"


def _fill(template: str, concept: Concept, **words: str) -> str:
    plural = concept.plural
    what = "which structures" if plural else "what"
    return template.format(
        s="s" if plural else "",
        be=_be(concept),
        Be=_upper(_be(concept)),
        one="ones" if plural else "one",
        part="parts" if plural else "part",
        what=what,
        a="" if plural else "a ",
        it="them" if plural else "it",
        **words,
    )


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
