"""Questions about structures that a picture does not show. A round's corrections are nearly all about what is there; without
these the model would learn to outline something whatever it is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from medsegr.qa import phrasing
from medsegr.qa.absence import EVERYWHERE, HOMONYMS, regions_exclude
from medsegr.qa.facts import Concept
from medsegr.qa.schema import Conversation, Turn
from medsegr.training.images import Case

SHARE = 0.25
"""Denials among what is asked about a picture."""
BY_FACT = 0.3
"""Of the denials, those that describe the structure and do not name it."""
FACTS_OF_A_REGION = frozenset({"appearance", "confusion"})
"""Kinds of facts that may hold for another structure of another region."""


def lacking(case: Case, concepts: Mapping[str, Concept], names: Iterable[str]) -> tuple[list[str], list[str]]:
    """(structures of the picture's own set that it certainly lacks, those of `names` that belong to distant anatomy). The latter
    is empty where it is not known what part of the body the picture shows."""
    there = set(np.unique(case.labels).tolist())
    empty = {name for name, values in case.values.items() if case.exhaustive and not there & set(values)}
    own = [n for n in sorted((empty | case.absent) - case.present) if n in concepts]
    shown = regions(case, concepts)
    distant = [
        name
        for name in names
        if name in concepts and name not in case.values and name not in case.absent and name not in EVERYWHERE
        and not shown & HOMONYMS.get(name, frozenset())
        and concepts[name].region
        and all(regions_exclude(region, concepts[name].region) for region in shown)
    ]  # fmt: skip
    return own, distant if shown else []


def regions(case: Case, concepts: Mapping[str, Concept]) -> frozenset[str]:
    """Parts of the body that the picture shows, as far as its structures tell."""
    known = (concepts[n].region for n in {*case.values, *case.present, *case.absent} if n in concepts)
    return frozenset(region for region in known if region)


def denials(
    case: Case, concepts: Mapping[str, Concept], names: Sequence[str], count: int, rng: random.Random
) -> list[Conversation]:
    """`count` questions about absent structures with their answers, half of them about the picture's own set where it lacks any;
    fewer if nothing is known to be absent."""
    first = next(iter(case.conversations), None)
    own, distant = lacking(case, concepts, names)
    if first is None or not own and not distant:
        return []
    found = []
    here = sorted(regions(case, concepts))
    for n in range(count):
        same = bool(own) and (not distant or rng.random() < 0.5)
        concept = concepts[rng.choice(own if same else distant)]
        study = phrasing.study_name((here or [concept.region])[0], first.modality)
        facts = [f for f in concept.training_facts if same or f.kind not in FACTS_OF_A_REGION]
        fact = rng.choice(facts) if facts and rng.random() < BY_FACT else None
        turn = Turn(
            phrasing.implicit_question(rng, concept, fact.text)
            if fact
            else phrasing.explicit_question(rng, concept, study),
            phrasing.absent_answer(concept, study),
            (),
            "absent_same_set" if same else "absent_elsewhere",
            fact.id if fact else None,
            (concept.name,),
        )
        found.append(replace(first, id=f"{first.id}_absent{n}", turns=(turn,)))
    return found


def with_denials(case: Case, concepts: Mapping[str, Concept], names: Sequence[str], seed: int) -> Case:
    """The case with as many denials among its conversations that they are `SHARE` of all."""
    said = sum(any(turn.absent for turn in c.turns) for c in case.conversations)
    wanted = SHARE * (len(case.conversations) - said) / (1 - SHARE) - said
    rng = random.Random(f"{seed}/{case.image}/absent")
    more = denials(case, concepts, names, max(0, round(wanted)), rng)
    return replace(case, conversations=(*case.conversations, *more))
