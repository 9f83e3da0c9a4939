"""Have a predictor look at an image: the overview's probabilities, a handful of questions, an embedding. Runs in the model's
process, between questions; it stops as soon as it is told to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegr.choosing.disagreement import (
    Said,
    answer_against_overview,
    paraphrases,
    said,
    text_against_masks,
)
from medsegr.choosing.look import Look, bits
from medsegr.errors import Cancelled
from medsegr.imaging import Picture, Volume, to_rgb, volume_intensity_range
from medsegr.qa.facts import Concept

PROBES = (0.5, 0.3, 0.7)
"""Where in a stack, as a share of its depth, it is looked at."""
LIKELY = 0.3
"""A structure counts as seen from this probability on, as in the predictor's own answers."""
POSSIBLE = 0.05
ASKED = 2
"""Structures that are asked for, each in two ways."""
MOST_SEEN = 8

Stop = Callable[[], bool]
Weighed = tuple[float, str]


@dataclass(frozen=True)
class Glance:
    """One encoder pass over one picture: `chances` [n_targets] and `embedding` [D], both float64."""

    chances: NDArray[np.float64]
    embedding: NDArray[np.float64]


@dataclass(frozen=True)
class _Overview:
    """What the glances at all slices come to: the highest `chances` by structure, those `here`, on the slice `best` where most is
    seen, and the mean `embedding`. Empty for a predictor without an overview."""

    chances: dict[str, float] = field(default_factory=dict)
    here: dict[str, float] = field(default_factory=dict)
    best: int = 0
    embedding: tuple[float, ...] = ()


def look(predictor: Any, image: Picture | Volume, image_id: str, stop: Stop = lambda: False) -> Look:
    """Look at a picture, or at three slices of a volume; a volume is asked about where most is seen.

    Takes one encoder pass a slice and five questions at most. Raises `Cancelled` soon after `stop` says so, and `MedSegRError`
    for an image that the predictor cannot use.
    """
    pictures = _pictures(image)
    overview = _overview(predictor, pictures, stop)
    predictor.set_image(pictures[overview.best])

    def ask(question: str) -> Any:
        _check(stop)
        return predictor.ask(question, should_stop=stop)

    everything = ask("")
    mismatch, paraphrase = _contradictions(predictor, overview.here, said(everything), ask)
    seen = overview.chances or _confidences(everything)
    likely = sorted(((c, n) for n, c in seen.items() if c >= LIKELY), reverse=True)[:MOST_SEEN]
    doubted = max(seen.items(), key=lambda one: bits(one[1]), default=None)
    good = sum(bits(float(finding.confidence)) for finding in everything.findings)
    return Look(
        image=image_id,
        version=str(predictor.version),
        seen=tuple((name, round(chance, 3)) for chance, name in likely),
        entropy=round(sum(map(bits, overview.chances.values())) + good, 4),
        doubted=None if doubted is None else (doubted[0], round(doubted[1], 3)),
        mismatch=round(mismatch[0], 4),
        mismatch_why=mismatch[1],
        paraphrase=round(paraphrase[0], 4),
        paraphrase_why=paraphrase[1],
        embedding=overview.embedding,
    )


def _overview(predictor: Any, pictures: Sequence[Picture], stop: Stop) -> _Overview:
    glances: list[Glance] = []
    for picture in pictures:
        _check(stop)
        found = glance(predictor, picture)
        if found is None:
            return _Overview()
        glances.append(found)
    table = np.stack([g.chances for g in glances])
    best = int(table.sum(axis=1).argmax())
    names = tuple(predictor.targets)
    return _Overview(
        dict(zip(names, table.max(axis=0).tolist(), strict=True)),
        dict(zip(names, table[best].tolist(), strict=True)),
        best,
        _unit(np.mean([g.embedding for g in glances], axis=0)),
    )


def _contradictions(
    predictor: Any, here: dict[str, float], everything: Said, ask: Callable[[str], Any]
) -> tuple[Weighed, Weighed]:
    """The worst mismatch of text, masks and overview, and the worst of two ways of asking, each with a clause in words."""
    concepts = {concept.name: concept for concept in getattr(predictor, "knowledge", ())}
    replies, against, apart = [everything], list[Weighed](), [(0.0, "")]
    for target in _to_ask(here, list(everything.masks)):
        named = said(ask(f"Outline the {target}."))
        other = said(ask(_described(target, concepts.get(target))))
        replies += [named, other]
        against.append(answer_against_overview(target, named, here[target]) if here else (0.0, ""))
        apart.append(paraphrases(target, named, other))
    mismatch = max([text_against_masks(replies), *against], key=lambda weighed: weighed[0])
    return mismatch, max(apart, key=lambda weighed: weighed[0])


def glance(predictor: Any, picture: Picture) -> Glance | None:
    """The overview's probabilities and an embedding of one picture; None for a predictor without an overview (a large preset)."""
    model: Any = getattr(predictor, "model", None)
    if not hasattr(model, "encode_image"):
        return None
    import torch  # a stand-in may do without

    from medsegr.imaging.resizing import resize_rgb

    rgb = to_rgb(picture.pixels, picture.modality, picture.body_part)
    square = torch.from_numpy(resize_rgb(rgb, model.config.image_size)).unsqueeze(0)
    features = model.encode_image(square)
    maps = features.embedding[0].flatten(1).float()
    embedding = torch.cat([maps.mean(1), maps.std(1)])
    return Glance(
        features.present[0].float().sigmoid().cpu().numpy().astype(np.float64),
        embedding.cpu().numpy().astype(np.float64),
    )


def _pictures(image: Picture | Volume) -> list[Picture]:
    if isinstance(image, Picture):
        return [image]
    scale, n = volume_intensity_range(image), image.n_slices
    chosen = dict.fromkeys(min(n - 1, int(p * n)) for p in PROBES)
    return [
        Picture(
            to_rgb(image.slice_pixels(k), image.modality, image.body_part, scale),
            image.modality,
            image.slice_spacing_mm,
            image.body_part,
        )
        for k in chosen
    ]


def _check(stop: Stop) -> None:
    if stop():
        raise Cancelled("The look was put off.")


def _to_ask(chances: dict[str, float], outlined: Sequence[str]) -> list[str]:
    """The structures whose presence is most open; of a model without an overview, those that it outlined first."""
    possible = [(bits(chance), name) for name, chance in chances.items() if chance >= POSSIBLE]
    return [name for _, name in sorted(possible, reverse=True)][:ASKED] if chances else list(outlined)[:ASKED]


def _described(target: str, concept: Concept | None) -> str:
    """A question for `target` that does not name it, or else names it in another way."""
    facts = [fact for fact in concept.training_facts if not fact.only_asked] if concept else []
    if concept is None or not facts:
        return f"Where is the {target}?"
    return f"Which structure{'s' if concept.plural else ''} here {facts[0].text}?"


def _confidences(reply: Any) -> dict[str, float]:
    return {finding.label: min(max(float(finding.confidence), 0.0), 1.0) for finding in reply.findings}


def _unit(vector: NDArray[np.float64]) -> tuple[float, ...]:
    length = float(np.linalg.norm(vector))
    return tuple(round(float(value) / length, 4) for value in vector) if length > 0 else ()
