"""From corrections to training examples: pictures with label maps, and conversations about them.

Masks of one picture may overlap (a disc and its cup), label maps cannot: each combination of masks that occurs becomes one value,
and a structure is the union of the values it takes part in.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medsegr.imaging.resizing import resize_labels, resize_rgb
from medsegr.qa import phrasing
from medsegr.qa.facts import Concept, Fact, plain_concept
from medsegr.qa.schema import Conversation, Target, Turn
from medsegr.rounds.knowledge import knowledge_of
from medsegr.training.images import Case

MIN_PIXELS = 6
"""Fewer pixels of a structure, on the model's square, are not asked for."""
WORDINGS = 8
"""Questions by name that are made for each structure of a picture."""
SITE = "site"
"""Name of the set that a site's pictures belong to; followed by the modality."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """One picture [H, W, 3] uint8 with what is known about it: a mask [H, W] bool per structure (empty: not present), and the
    clinician's own question with the structures that answer it."""

    name: str
    patient_key: str
    modality: str | None
    rgb: NDArray[np.uint8]
    masks: Mapping[str, NDArray[np.bool_]]
    question: str = ""
    asked: tuple[str, ...] = ()


def training_case(drawn: Drawn, concepts: Mapping[str, Concept], side: int, seed: int) -> Case:
    """The picture on the model's square with conversations about every structure that is known of it."""
    codes, values = combined(
        {n: resize_labels(m.astype(np.uint8), side) > 0 for n, m in drawn.masks.items()}, side
    )
    present = {
        name: taken
        for name, taken in values.items()
        if np.isin(codes, taken).sum() >= MIN_PIXELS and drawn.masks[name].any()
    }
    absent = [name for name, mask in drawn.masks.items() if not mask.any()]
    dataset = f"{SITE}_{drawn.modality or 'image'}"
    turns = _turns(drawn, present, absent, concepts, random.Random(f"{seed}/{drawn.name}"))
    conversations = tuple(
        Conversation(
            f"{drawn.name}_{n}",
            drawn.name,
            drawn.modality or "PHOTO",
            dataset,
            drawn.patient_key,
            "train",
            (turn,),
        )
        for n, turn in enumerate(turns)
    )
    return Case(
        image=drawn.name,
        dataset=dataset,
        patient_id=drawn.patient_key,
        mirror_x=False,
        mirror_y=False,
        rgb=resize_rgb(drawn.rgb, side),
        labels=codes,
        conversations=conversations,
        present=frozenset(present),
        absent=frozenset(absent),
        values={name: values.get(name, ()) for name in drawn.masks},
    )


def named_again(case: Case, concepts: Mapping[str, Concept], wordings: int, seed: int) -> Case:
    """The case with `wordings` more questions by name about every structure that it shows. What is kept of a training picture
    asks about a few; of one with forty teeth, those that nobody asks about would be forgotten."""
    first = next(iter(case.conversations), None)
    if first is None:
        return case
    there, counts = np.unique(case.labels, return_counts=True)
    pixels = dict(zip(there.tolist(), counts.tolist(), strict=True))
    rng = random.Random(f"{seed}/{case.image}/names")
    more = []
    for name, values in sorted(case.values.items()):
        if name not in concepts or sum(pixels.get(v, 0) for v in values) < MIN_PIXELS:
            continue
        concept, target = concepts[name], Target(name, name, case.image, tuple(values))
        for n in range(wordings):
            question = phrasing.explicit_question(rng, concept, _study(concept, first.modality))
            turn = Turn(question, _answer(concept), (target,), "explicit")
            more.append(replace(first, id=f"{first.id}_{name}_{n}", turns=(turn,)))
    return replace(case, conversations=(*case.conversations, *more))


def combined(
    masks: Mapping[str, NDArray[np.bool_]], side: int
) -> tuple[NDArray[np.uint8], dict[str, tuple[int, ...]]]:
    """A label map [S, S] of the masks' combinations, and the values of each structure. Of more than 255 combinations the rarest
    are left to the background."""
    if not masks:
        return np.zeros((side, side), np.uint8), {}
    stack = np.stack(list(masks.values()))  # [k, S, S]
    keys, inverse, counts = np.unique(
        stack.reshape(len(stack), -1), axis=1, return_inverse=True, return_counts=True
    )
    order = [int(i) for i in np.argsort(-counts) if keys[:, i].any()][:255]
    table = np.zeros(keys.shape[1], np.uint8)
    for value, column in enumerate(order, start=1):
        table[column] = value
    values = {
        name: tuple(int(table[column]) for column in order if keys[row, column])
        for row, name in enumerate(masks)
    }
    return table[inverse.reshape(-1)].reshape(side, side), values


def concept_of(
    name: str, concepts: Mapping[str, Concept], knowledge: Mapping[str, object] | None = None
) -> Concept:
    """What is known of a structure: the knowledge base's entry, what clinicians said of it (`names`, `location`, `facts`; see
    `medsegr.rounds.knowledge`), or its name alone. What clinicians said goes beside the entry and replaces nothing; the id of a
    fact depends on its words only."""
    base = concepts.get(name) or plain_concept(name)
    said = knowledge_of(knowledge or {})
    if not any(said.values()):
        return base
    known = {word.casefold() for word in base.give_away} | {fact.text.casefold() for fact in base.facts}
    names = tuple(word for word in said["names"] if word.casefold() not in known)
    told = replace(base, synonyms=(*base.synonyms, *names), location=base.location or said["location"])
    new = [text for text in said["facts"] if text.casefold() not in known and not told.leak(text)]
    return replace(told, facts=(*base.facts, *(_fact(name, text) for text in new)))


def _fact(name: str, text: str) -> Fact:
    digest = hashlib.sha256(text.casefold().encode()).hexdigest()[:8]
    return Fact(f"{name.replace(' ', '_')}.{SITE}.{digest}", "function", text, "a clinician", held_out=False)


def _turns(
    drawn: Drawn,
    present: Mapping[str, tuple[int, ...]],
    absent: Sequence[str],
    concepts: Mapping[str, Concept],
    rng: random.Random,
) -> list[Turn]:
    """Questions by name for all that is known, by fact for what is there, about several at once, and the clinician's own."""
    turns: list[Turn] = []
    for name, values in present.items():
        concept = concept_of(name, concepts)
        study, target = _study(concept, drawn.modality), Target(name, name, drawn.name, values)
        for _ in range(WORDINGS):
            question = phrasing.explicit_question(rng, concept, study)
            turns.append(Turn(question, _answer(concept), (target,), "explicit"))
        facts = rng.sample(concept.training_facts, min(WORDINGS // 2, len(concept.training_facts)))
        turns += [
            Turn(
                phrasing.implicit_question(rng, concept, fact.text),
                phrasing.implicit_answer(concept, fact.text) if not fact.only_asked else _answer(concept),
                (target,),
                "implicit",
                fact.id,
            )
            for fact in facts
        ]
    for name in absent:
        concept = concept_of(name, concepts)
        study = _study(concept, drawn.modality)
        for _ in range(WORDINGS // 2):
            question = phrasing.explicit_question(rng, concept, study)
            turns.append(
                Turn(question, phrasing.absent_answer(concept, study), (), "absent_same_set", None, (name,))
            )
    if len(present) > 1:
        for _ in range(WORDINGS // 2):
            several = rng.sample(sorted(present), min(len(present), rng.choice((2, 2, 3))))
            known = [concept_of(name, concepts) for name in several]
            targets = tuple(Target(n, n, drawn.name, present[n]) for n in several)
            turns.append(
                Turn(
                    phrasing.multi_question(rng, known, _study(known[0], drawn.modality)),
                    phrasing.multi_answer(known, []),
                    targets,
                    "multi",
                )
            )
    return turns + _own(drawn, present, concepts)


def _own(drawn: Drawn, present: Mapping[str, tuple[int, ...]], concepts: Mapping[str, Concept]) -> list[Turn]:
    """The clinician's own question, twice, answered as it was corrected."""
    names = [name for name in drawn.asked if name in present]
    if not drawn.question.strip() or not drawn.asked:
        return []
    known = [concept_of(name, concepts) for name in names]
    if not known and any(drawn.masks[name].any() for name in drawn.asked if name in drawn.masks):
        return []  # it is there, but too small on the model's square
    if not known:
        concept = concept_of(drawn.asked[0], concepts)
        answer = phrasing.absent_answer(concept, _study(concept, drawn.modality))
        return [Turn(drawn.question, answer, (), "absent_same_set", None, drawn.asked)] * 2
    answer = _answer(known[0]) if len(known) == 1 else phrasing.multi_answer(known, [])
    targets = tuple(Target(n, n, drawn.name, present[n]) for n in names)
    return [Turn(drawn.question, answer, targets, "explicit")] * 2


def _answer(concept: Concept) -> str:
    """The answer about one structure by name; without a known place it is outlined, no more."""
    return phrasing.explicit_answer(concept) if concept.location else phrasing.multi_answer([concept], [])


def _study(concept: Concept, modality: str | None) -> str:
    if not concept.region:
        return phrasing.MODALITY_NAMES.get(modality or "", "image")
    return phrasing.study_name(concept.region, modality or "")
