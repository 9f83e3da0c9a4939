"""Whether the side words of a sentence agree with a mask. Strict: a side that cannot be confirmed is a problem.

"left" and "right" mean the patient's sides in radiological convention, unless the sentence says that it speaks of the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from medsegr.qa.annotate.mask_facts import Frame, MaskFacts, in_frame

SIDE = re.compile(r"\b(left|right)(?:ward|most|-?sided)?\b", re.IGNORECASE)
_MARKUP = re.compile(r"</?p>|\[SEG\]")
_PICTURE = r"(?:image|picture|photograph|photo|frame|view|screen)"
_PLACE = (
    r"(?:upper|top|lower|bottom|left|right|middle|central|centre|far|hand|half|part|side|corner|quadrant|edge|"
    r"third|most|and|the)"
)
# "in the upper right corner of the image", "image left", "the picture's right half", "the viewer's left"
_IN_IMAGE = (
    re.compile(rf"\b((?:{_PLACE}[\s-]+)+)(?:of|in)\s+(?:the|this)\s+{_PICTURE}\b", re.IGNORECASE),
    re.compile(
        rf"\b(?:{_PICTURE}(?:['’]s)?|viewer['’]s|observer['’]s)\s+((?:{_PLACE}\b[\s-]*)+)", re.IGNORECASE
    ),
)
_VERTICAL = {"upper": "upper", "top": "upper", "lower": "lower", "bottom": "lower"}
# Words that are no claim: a choice offered by a question, the other one of a pair, "right" that is no side.
_NO_CLAIM = re.compile(
    r"\b(?:left or (?:the )?right|right or (?:the )?left|left[- ]to[- ]right|right[- ]to[- ]left"
    r"|(?:its|the) (?:left|right)[- ](?:twin|counterpart|fellow|partner|mate)"
    r"|right[- ]angled?|left (?:behind|by|alone|untreated))\b"
    r"|(?<!the )(?<!['’]s )\bright (?:here|there|next|below|above|behind|beside|under|after|now)\b",
    re.IGNORECASE,
)
_TWO_SIDED = re.compile(r"\b(?:left and (?:the )?right|right and (?:the )?left)\b", re.IGNORECASE)
_PATIENTS = re.compile(r"\bpatient['’]s (?:own )?(?:upper |lower )?(?:left|right)\b", re.IGNORECASE)


def name_pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the names as whole words, longest first; nothing where there is none."""
    words = sorted({n for n in names if n}, key=lambda n: (-len(n), n))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words)) or '(?!)'})(?!\w)", re.IGNORECASE)


def side_problems(
    text: str,
    facts: MaskFacts,
    sided_names: re.Pattern[str],
    centres: Mapping[str, tuple[float, float]],
) -> list[str]:
    """Claims of a side or, of the image, a height that the mask does not bear out.

    sided_names: names such as "left kidney", whose side words say nothing about the target; centres: (x, y) in [0, 1] of the
    present structures, by each of their names in lower case.
    """
    text = _MARKUP.sub("", text)
    problems, text = _relative_problems(text, facts, centres)
    text = _NO_CLAIM.sub(" ", sided_names.sub(" it ", text))
    if facts.frame is Frame.IMAGE and _PATIENTS.search(text):
        problems.append("it names the patient's side, which this kind of image does not tell")
    for pattern in _IN_IMAGE:
        for found in pattern.finditer(text):
            problems += _image_problems(found.group(1), facts)
        text = pattern.sub(" ", text)
    if _TWO_SIDED.search(text):
        if facts.side != "both":
            problems.append(f"it says both sides, but the mask is {_where(facts)}")
        text = _TWO_SIDED.sub(" ", text)
    for word in dict.fromkeys(found.group(1).lower() for found in SIDE.finditer(text)):
        if word != facts.side:
            problems.append(f"it says {word}, but the mask is {_where(facts)}")
    return problems


def _relative_problems(
    text: str, facts: MaskFacts, centres: Mapping[str, tuple[float, float]]
) -> tuple[list[str], str]:
    """Claims such as "to the left of the liver", and the text without them."""
    names = name_pattern(centres).pattern
    relative = re.compile(rf"\b(left|right)(?: side)? of (?:the |a )?({names})", re.IGNORECASE)
    problems = []
    for found in relative.finditer(text):
        side, name = found.group(1).lower(), found.group(2)
        image_side = "left" if facts.centre[0] < centres[name.lower()][0] else "right"
        if in_frame(image_side, facts.frame) != side:
            problems.append(f"it says {side} of the {name}, but the mask is on the other side of it")
    return problems, relative.sub(" ", text)


def _image_problems(place: str, facts: MaskFacts) -> list[str]:
    problems = []
    for word in re.findall(r"[a-z]+", place.lower()):
        if word in {"left", "right"} and word != facts.image_side:
            problems.append(f"it says {word} in the image, but the mask is at {facts.image_quadrant} there")
        if word in _VERTICAL and _VERTICAL[word] != facts.image_vertical:
            problems.append(f"it says {word} in the image, but the mask is at {facts.image_quadrant} there")
    return problems


def _where(facts: MaskFacts) -> str:
    owner = f"{facts.frame.value}'s"
    if facts.side == "both":
        return "on both sides"
    return "in the middle" if facts.side == "middle" else f"on the {owner} {facts.side}"
