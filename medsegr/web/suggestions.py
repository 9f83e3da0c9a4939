"""`GET /medsegr/suggestions`: a few questions that fit an image's modality and body part and that this model was trained for.

They come from the model's targets and the knowledge base, never from a patient's image; the viewer's panel shows them as
buttons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from fastapi import APIRouter
from fastapi.params import Depends

from medsegr.qa.absence import regions_exclude
from medsegr.qa.facts import Concept, Fact, load_knowledge
from medsegr.qa.phrasing import STUDIES
from medsegr.web.edge import SentenceRoute
from medsegr.web.errors import Refusal

EVERYTHING = "Outline every structure that you know."
MAX_TEXT = 64
KINDS = {
    "CR": ("XR",), "DX": ("XR",), "MG": ("XR",), "PX": ("XR",), "IO": ("XR",), "RG": ("XR",), "XA": ("XR",), "RF": ("XR",),
    "OP": ("FUNDUS",), "OPT": ("FUNDUS",), "SM": ("MICRO",), "GM": ("MICRO", "DERM", "PHOTO"), "XC": ("DERM", "PHOTO"),
}  # fmt: skip
"""DICOM Modality (PS3.3 C.7.3.1.1.1) -> the kinds of study that the knowledge base tells apart; others keep their name."""
BODY_PARTS = {
    "abdomen": ("ABDOMEN", "LIVER", "KIDNEY", "PANCREAS", "SPLEEN", "STOMACH", "GALLBLADDER", "ADRENAL"),
    "brain": ("BRAIN", "HEAD", "SKULL", "HIPPOCAMPUS"),
    "breast": ("BREAST", "MAMMA"),
    "cells": ("CELL",),
    "chest": ("CHEST", "THORAX", "LUNG", "RIB"),
    "eye": ("EYE", "RETINA", "ORBIT"),
    "fetus": ("FETUS", "FOETUS", "UTERUS"),
    "foot": ("FOOT", "TOE"),
    "heart": ("HEART", "CARDIAC"),
    "jaw": ("JAW", "MANDIBLE", "MAXILLA", "TEETH", "TOOTH", "DENTAL"),
    "limb": ("ARM", "LEG", "WRIST", "HAND", "ELBOW", "FOREARM", "THIGH", "CALF", "EXTREMITY"),
    "skin": ("SKIN",),
    "spine": ("SPINE", "CORD"),
}
"""Region of the knowledge base -> words that Body Part Examined (PS3.16 Annex L) contains for it."""
ONE_SIDED = ("left ", "right ", "upper ", "lower ")
ONLY_ON = {
    "intracranial hemorrhage": "CT",
    **dict.fromkeys(
        ("hippocampus", "anterior hippocampus", "posterior hippocampus", "multiple sclerosis lesion"), "MR"
    ),
    **dict.fromkeys(
        ("brain tumour", "tumour core", "enhancing tumour", "tumour necrosis", "peritumoural oedema"), "MR"
    ),
    **dict.fromkeys(("pectoral muscle", "fibroglandular breast tissue", "fatty breast tissue"), "XR"),
}
"""Structures that are seen well in one kind of study only."""
MODALITY_REGIONS = {"MG": "breast", "PX": "jaw", "IO": "jaw", "OP": "eye", "OPT": "eye", "SM": "cells"}
"""What a modality alone says about the body part."""


def suggest(targets: Sequence[str], modality: str | None, body_part: str | None, count: int = 3) -> list[str]:
    """`count` questions at most, from different structures, then the question for everything.

    The first describes its structure and the others name theirs. Without structures that fit, only the last remains.
    """
    concepts = fitting(targets, modality, body_part)
    described = next(((c, f) for c in concepts for f in c.training_facts if _reads_well(f)), None)
    asked = [] if described is None else [_question(*described)]
    named = [c for c in concepts if described is None or c.name != described[0].name]
    asked += [f"Outline the {concept.name}." for concept in named[: count - len(asked)]]
    return [*asked, EVERYTHING]


def fitting(targets: Sequence[str], modality: str | None, body_part: str | None) -> list[Concept]:
    """The targets that such an image may show: every region in turn, short names first, one-sided structures last."""
    knowledge = load_knowledge().concepts
    known = [knowledge[name] for name in targets if name in knowledge]
    kinds = _kinds(modality)
    regions = _regions(kinds, modality, body_part)
    shown = [
        c for c in known if c.region in regions and (not kinds or ONLY_ON.get(c.name, kinds[0]) in kinds)
    ]
    shown.sort(key=lambda c: (c.name.startswith(ONE_SIDED), c.name.count(" ")))
    by_region = [[c for c in shown if c.region == region] for region in sorted(regions)]
    return [c for row in zip_longest(*by_region) for c in row if c is not None]


def _kinds(modality: str | None) -> tuple[str, ...]:
    code = (modality or "").strip().upper()
    return KINDS.get(code, (code,) if code else ())


def _regions(kinds: tuple[str, ...], modality: str | None, body_part: str | None) -> set[str]:
    trained = {region for region, kind in STUDIES if not kinds or kind in kinds}
    text = (body_part or "").strip().upper()
    named = {region for region, words in BODY_PARTS.items() if any(word in text for word in words)}
    if text:
        both = trained & named
        return both or {r for r in trained if named and not any(regions_exclude(r, other) for other in named)}
    alone = MODALITY_REGIONS.get((modality or "").strip().upper())
    return {alone} if alone else trained if kinds else set()


def _question(concept: Concept, fact: Fact) -> str:
    return f"Which structure{'s' if concept.plural else ''} here {fact.text}?"


def _reads_well(fact: Fact) -> bool:
    return fact.kind in ("function", "lay") and len(fact.text) <= MAX_TEXT


def suggestions_router(targets: Callable[[], Sequence[str]], guards: Sequence[Depends] = ()) -> APIRouter:
    """The router; `targets` gives the names that the model in charge was trained on, `guards` dependencies (a login)."""
    router = APIRouter(prefix="/medsegr", tags=["MedSeg-R"], route_class=SentenceRoute)

    @router.get(
        "/suggestions", summary="Questions that fit a modality and body part", dependencies=list(guards)
    )
    def suggestions(modality: str | None = None, body_part: str | None = None) -> dict[str, Any]:
        for name, text in (("modality", modality), ("body_part", body_part)):
            if text and len(text) > MAX_TEXT:
                raise Refusal(422, f"`{name}` has {len(text)} characters; at most {MAX_TEXT} are accepted.")
        return {"suggestions": suggest(targets(), modality, body_part)}

    return router
