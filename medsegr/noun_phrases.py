"""What a question asks for, as noun phrases: the grammar of requests, blind to what the words mean.

"Outline the clavicle and the first rib on this film, please" has the phrases "clavicle" and "first rib". Descriptions ("the organ
that stores bile") end a phrase where they begin: names in them are landmarks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from medsegr.anatomy_names import words_of

DRAW = (
    r"(?<!the\s)(?<!\ba\s)(?:outline|segment|delineate|highlight|contour|trace|annotate|circle|encircle|locate|mark|label|"
    r"draw(?:\s+around)?)|"
    r"(?:contours?|outlines?|masks?|segmentations?|borders?|boundar(?:y|ies)|edges?)\s+(?:of|for)"
)
POINT = (
    r"show(?:\s+me)?|find|identify|point\s+(?:out|to|at)|where\s+(?:is|are|would|can\s+(?:i|you|we)\s+(?:find|see))|where's|"
    r"(?:what|how)\s+about|(?:is|are|was|were)\s+there|(?:do|can|could|did)\s+(?:you|we|i)\s+(?:see|find|spot|recogni[sz]e)|"
    r"like\s+to\s+see|want\s+to\s+see|look(?:ing)?\s+(?:for|at)|search(?:ing)?\s+for|how\s+(?:big|large|long|thick|wide)\s+(?:is|are)|"
    r"(?:size|volume|area|diameter|length)\s+of"
)
STATE = r"is|are|was|were|has|have|does|do|how\s+many"
REQUEST = re.compile(
    rf"(?<![\w'’])(?:(?P<draw>{DRAW})|(?P<point>{POINT})|(?P<state>{STATE}))(?![\w'’])", re.IGNORECASE
)
DESCRIPTION = re.compile(
    r"(?<!\w)(?:what(?!\s+(?:about|is\s+the\s+(?:size|volume|area|diameter|length)\s+of))|that|which|whose|who)(?!\w)",
    re.IGNORECASE,
)
"""From such a word on a question describes."""
LINK = re.compile(
    r"\s*(?:,\s*(?:and\s+|or\s+)?|;|(?<!\w)(?:and|or|as\s+well\s+as|plus)(?!\w)|&)\s*", re.IGNORECASE
)
SENTENCE_END = re.compile(r"[?!:\n]|\.(?=\s|$)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPENERS = _words("and now next only just also then or but so ok okay please well no yes instead")
DETERMINERS = _words(
    "the a an any all both some every each of for to me us his her my your our their patient's left right whole "
    "entire visible"
)
ENDS = _words(
    "in on here there please now only alone visible present seen shown for too again at from within"
)
"""Words after which the rest of a request only says where to look, or is polite."""
STOPS = ENDS | _words(
    "near beside besides under above below beneath with without behind between around inside outside next along "
    "through by over across during after before than as is are was were be been has have had does do did can "
    "could would should will may might if because while not using like into onto towards toward opposite against "
    "since to"
)
LONGEST = 7
"""Words of the longest name that is looked for."""


@dataclass(frozen=True)
class NounPhrase:
    """Words of a phrase without its determiners. `sure`: by its grammar it names what is to be outlined; `exact`: nothing but the
    phrase stands there, so that words after a name are no predicate ("is the liver enlarged")."""

    words: tuple[str, ...]
    sure: bool
    exact: bool


def asked_phrases(question: str) -> list[NounPhrase]:
    """The phrases that `question` asks for, in order; none for a description or a greeting without nouns."""
    description = DESCRIPTION.search(question)
    plain = question[: description.start()] if description else question
    requests = list(REQUEST.finditer(plain))
    if not requests:
        return [] if description else list(_fragment(plain))
    found: list[NounPhrase] = []
    for number, request in enumerate(requests):
        following = requests[number + 1].start() if number + 1 < len(requests) else len(plain)
        rest = plain[request.end() : following]
        stop = SENTENCE_END.search(rest)
        cut = following < len(plain) and not stop
        described = description is not None and following == len(plain) and not stop
        found += _phrases(
            rest[: stop.start()] if stop else rest,
            draw=request["draw"] is not None,
            state=request["state"] is not None,
            cut=cut or described,
        )
    return found


def _phrases(segment: str, *, draw: bool, state: bool, cut: bool) -> Iterator[NounPhrase]:
    """Phrases of what follows a request up to the next one. `cut`: something else than the end of a sentence follows."""
    parts = LINK.split(segment)
    for number, part in enumerate(parts):
        words, determined, stop = _noun_phrase(part)
        last = number == len(parts) - 1
        ended = stop in ENDS or (stop is None and not (last and cut))
        if words:
            sure = ended and (determined or (draw and number == 0)) and (not state or stop in ENDS)
            yield NounPhrase(words, sure, not state or stop in ENDS)
        if stop is not None and (stop not in ENDS or not words):
            return  # the rest belongs to a description


def _fragment(question: str) -> Iterator[NounPhrase]:
    """A question without a verb, such as "And the clavicle?" or "The clavicle, please"."""
    for sentence in SENTENCE_END.split(question):
        for number, part in enumerate(LINK.split(sentence)):
            words, determined, stop = _noun_phrase(part)
            if not words:
                if stop in ("in", "on", "here", "at", "for") or number == 0 or stop is None:
                    continue  # "In this picture, the clavicle": the noun is still to come
                return
            if stop is None or stop in ENDS:
                yield NounPhrase(words, determined and len(words) <= 4, True)
            else:
                return


def _noun_phrase(text: str) -> tuple[tuple[str, ...], bool, str | None]:
    """Words of the noun phrase at the beginning of `text`, whether a determiner stands before it, and the word that ends it."""
    words = words_of(text.replace("-", " "))
    while words and words[0].lower() in OPENERS:
        words = words[1:]
    determined = False
    while words and words[0].lower() in DETERMINERS - {"left", "right"}:
        determined |= words[0].lower() not in ("of", "for", "to", "me", "us")
        words = words[1:]
    stop = next((i for i, word in enumerate(words) if word.lower() in STOPS), None)
    phrase = tuple(words[:stop] if stop is not None else words)
    return phrase[:LONGEST], determined, words[stop].lower() if stop is not None else None
