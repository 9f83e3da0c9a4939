"""Whether a structure that a question asks for by name is called absent: a logistic rule over what the language model would say
and what the overview saw at first glance.

The language model's first word is a weak witness, since it learnt from few images that lack a structure of their own kind; the
overview learnt from every structure of every image. `medsegr.training.fit_denial` fits the rule on patients kept out of training;
the answerer applies it before a word is written, at no cost. (Presence score and mask of the structure's own prompt were tried as
further witnesses: they added nothing, and one more decoding to every question.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

NEVER = 2.0
"""A probability that no word reaches."""
SMALLEST = 1e-4
"""A probability of "No" counts as no less than this, and as no more than 1 minus this."""


def said_logit(probability: float) -> float:
    """Logit of the probability of "No", within the bounds of `SMALLEST`."""
    p = min(max(probability, SMALLEST), 1 - SMALLEST)
    return math.log(p / (1 - p))


def least_no(rule: Sequence[float], overview: float) -> float:
    """The probability of "No" from which on a structure is called absent whose overview logit is `overview`; `NEVER` if none
    will do.

    rule: weight of `said_logit`, weight of the overview logit, offset; the sum is at least 0 where something is absent.
    """
    said, seen, offset = rule
    rest = seen * overview + offset
    if said <= 0:
        return 0.0 if rest >= 0 else NEVER
    least = -rest / said
    if abs(least) > said_logit(1.0):
        return 0.0 if least < 0 else NEVER
    return 1 / (1 + math.exp(-least))
