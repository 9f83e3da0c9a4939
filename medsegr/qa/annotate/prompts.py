"""The instructions to the language model, one function a step. Change a text, and raise `PROMPT_VERSION`.

A prompt holds modality, region, mask facts and knowledge-base text; never an identifier, a file name or a pixel.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from string import Template
from typing import Any

from medsegr.qa.annotate.cases import Case
from medsegr.qa.annotate.mask_facts import Frame
from medsegr.qa.facts import Concept
from medsegr.qa.phrasing import marked

PROMPT_VERSION = "1"
MOST_FACTS = 12

_SIDES = {
    Frame.PATIENT: (
        "Left and right mean the patient's sides. The image is shown in radiological convention: the patient's left is on "
        'the right of the image. If you mean the image, write "of the image".'
    ),
    Frame.IMAGE: (
        "The patient's sides are unknown. Left and right mean the sides of the image as you look at it; never write of "
        "the patient's left or right."
    ),
}
_BASIS = Template(
    """You write questions and answers about a medical image for students who learn to outline structures in it. You do not
see the image; what is true of it stands below. Claim nothing about the image that does not follow from it.

Image: $study (modality $modality, region $region).
$sides
Measured from the outline of the target (coordinates are shares of width and height, from the upper left corner):
$facts
Known about the target in general:
$known
"""
)
_DESCRIBE = Template(
    """Write two descriptions of the target, 8 to 20 words each, each a phrase that completes "the structure that ...":
- attribute: what it does, looks like, or which disease or treatment concerns it;
- location: where it lies, from the measured position and anatomy.
Rules: do not use any of these words or parts of them: $forbidden. Name no other structure that is present in the image.
Each description must fit the target and nothing else in the image$apart.
Reply with JSON only: {"attribute": "...", "location": "..."}"""
)
_ASK = Template(
    """This description fits the target: "$description".
Turn it into one question that a clinician could ask, and its answer.
Rules for the question: ask for the structure and its outline; keep the sense of the description; do not use $forbidden, and
name no other structure that is present in the image.
Rules for the answer: one sentence of 15 to 25 words that names the target exactly once, written as $mark, and says why it is
the one asked for.
Reply with JSON only: {"question": "...", "answer": "..."}"""
)
_CONVERSE = Template(
    """Descriptions that fit the target: $descriptions.
Write a dialogue of four turns about the target.
1. observe: the question asks for the structure by what can be seen or where it lies, without naming it.
2. reason: the question asks by function, disease or treatment which structure it is, without naming it.
3. segment: the question asks to outline the structure.
4. follow_up: the question refers back to that outline ("it", "this mask") and asks about its place, side, size or neighbours.
Questions of observe and reason must not use $forbidden. No question names another structure that is present in the image.
Every answer is one sentence of 15 to 25 words and holds $mark exactly once.
Reply with JSON only: {"turns": [{"step": "observe", "question": "...", "answer": "..."}, {"step": "reason", ...},
{"step": "segment", ...}, {"step": "follow_up", ...}]}"""
)
_REVIEW = Template(
    """Another writer made these turns about the target. Examine them strictly:
$turns
- Is every statement true of the target and of the measured facts, above all side, position and neighbours?
- Does each question fit the target and no other structure present in the image?
- Is the language natural and correct?
Verdicts: keep (nothing is wrong), revise (small faults: give all turns rewritten, in the same order, keeping $mark exactly
once in every answer and out of every question), drop (the idea itself is wrong).
Reply with JSON only: {"verdict": "keep", "reason": "..."} or {"verdict": "drop", "reason": "..."} or
{"verdict": "revise", "reason": "...", "turns": [{"question": "...", "answer": "..."}]}"""
)
_AGAIN = Template("That reply cannot be used: $problems. Reply again, with JSON only, and mend this.")


def describe(case: Case, concept: Concept) -> str:
    """Step a: two descriptions."""
    others = case.facts.also_present
    apart = f"; present besides it: {', '.join(others)}" if others else ""
    return _basis(case, concept) + _DESCRIBE.substitute(forbidden=_forbidden(concept), apart=apart)


def ask(case: Case, concept: Concept, description: str) -> str:
    """Step b: a question and its answer from one description."""
    return _basis(case, concept) + _ASK.substitute(
        description=description, forbidden=_forbidden(concept), mark=marked(concept.name)
    )


def converse(case: Case, concept: Concept, descriptions: Sequence[str]) -> str:
    """Step c: a dialogue."""
    return _basis(case, concept) + _CONVERSE.substitute(
        descriptions="; ".join(f'"{d}"' for d in descriptions),
        forbidden=_forbidden(concept),
        mark=marked(concept.name),
    )


def review(case: Case, concept: Concept, turns: Sequence[tuple[str, str]]) -> str:
    """Step d: the second pass over the (question, answer) turns of one conversation."""
    rows: list[dict[str, Any]] = [{"question": question, "answer": answer} for question, answer in turns]
    text = json.dumps(rows, ensure_ascii=False, indent=1)
    return _basis(case, concept) + _REVIEW.substitute(turns=text, mark=marked(concept.name))


def again(problems: Sequence[str]) -> str:
    """What is said to a reply that cannot be used."""
    return _AGAIN.substitute(problems="; ".join(problems))


def _basis(case: Case, concept: Concept) -> str:
    facts = concept.training_facts if case.training else concept.facts
    source = case.scene.source
    return _BASIS.substitute(
        study=case.scene.study,
        modality=source.modality,
        region=source.region,
        sides=_SIDES[case.facts.frame],
        facts=json.dumps(case.facts.to_json(), ensure_ascii=False),
        known="\n".join(f"- {t}" for t in (concept.location, *(f.text for f in facts[:MOST_FACTS]))),
    )


def _forbidden(concept: Concept) -> str:
    return ", ".join(f'"{word}"' for word in concept.give_away)
