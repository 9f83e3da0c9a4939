"""Corrections that contradict one another: of two structures one lies inside the other, here this way and there the other way
round. Names that change their meaning teach nothing, and validation cases that are mixed up alike would not show it: what lies
half way between two nested structures fits both.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medsegr.rounds.examples import Drawn
from medsegr.rounds.gate import Decision
from medsegr.rounds.tables import RoundStatus

logger = logging.getLogger(__name__)
INSIDE = 0.9
"""A structure lies inside another one if this share of it does, and if it is at most this share of the other one's size."""
NAMED = 5
LEAST, SHARE = 2, 0.2
"""So many pictures, and this share of them, must contradict the others; a single mistake stops no round."""


def contradiction(drawn: Sequence[Drawn]) -> Decision | None:
    """The decision to refuse, where the pictures' masks contradict one another; nothing needs to be trained then. Else None. It
    names corrections of the rarer kind (`NAMED`; the log all of them), so that the wrong ones can be withdrawn."""
    reasons, nested = [], _nested(drawn)
    for (inner, outer), names in sorted(nested.items()):
        against = nested.get((outer, inner), [])
        fewer = len(against) < len(names) or (len(against) == len(names) and inner < outer)
        if fewer and len(against) >= max(LEAST, SHARE * (len(names) + len(against))):
            reasons.append(
                f"{inner} lies inside {outer} in {len(names)} pictures and the other way round in {len(against)} "
                f"({_corrections(against)})"
            )
            logger.warning("Look at the corrections with the pictures %s.", ", ".join(against))
    if not reasons:
        return None
    sentence = f"Not adopted, because corrections contradict one another: {'; '.join(reasons)}."
    return Decision(RoundStatus.REFUSED, sentence, (), {"contradictions": float(len(reasons))})


def _corrections(pictures: Sequence[str]) -> str:
    """Ids of the corrections that pictures named `ID_SLICE` come from."""
    ids = list(dict.fromkeys(name.rpartition("_")[0] for name in pictures))
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"see {'correction' if len(ids) == 1 else 'corrections'} {', '.join(ids[:NAMED])}{more}"


def _nested(drawn: Iterable[Drawn]) -> dict[tuple[str, str], list[str]]:
    """(inner, outer) -> names of the pictures in which it is so."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, masks in _by_picture(drawn):
        sizes = {label: int(mask.sum()) for label, mask in masks.items()}
        for pair in combinations(sorted(sizes), 2):
            inner, outer = sorted(pair, key=sizes.__getitem__)
            both = int((masks[inner] & masks[outer]).sum())
            if both >= INSIDE * sizes[inner] and sizes[inner] <= INSIDE * sizes[outer]:
                found[inner, outer].append(name)
    return dict(found)


def _by_picture(drawn: Iterable[Drawn]) -> Iterator[tuple[str, dict[str, NDArray[np.bool_]]]]:
    """The masks that are not empty of each picture, whichever corrections they come from, with the name of the first of them."""
    found: dict[tuple[str, bytes], tuple[str, dict[str, NDArray[np.bool_]]]] = {}
    for of in drawn:
        key = of.patient_key, hashlib.sha256(of.rgb.tobytes() + repr(of.rgb.shape).encode()).digest()
        name, masks = found.setdefault(key, (of.name, {}))
        masks |= {label: mask for label, mask in of.masks.items() if mask.any()}
    yield from found.values()
