"""The fixed questions that measure abilities: what is seen, comparisons, counts, sides, reasons, neighbours, follow-ups."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from medsegr.qa import abilities
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.folders import read_labelled_sets
from medsegr.qa.scenes import Scene, parts, read_scenes, require_knowledge
from medsegr.qa.schema import Conversation, Turn
from medsegr.qa.turns import Asker

RATIO = 1.15
"""Two structures are compared only if one is this many times as large as the other."""
OFF_MIDDLE = 0.08
"""A side is asked for only if the centroid is this far from the middle line, as a share of the image's width."""
TURNS = 3


def ability_questions(
    data_dir: Path, knowledge: KnowledgeBase, split: str = "val", seed: int = 1, root: Path | None = None
) -> list[Conversation]:
    """Conversations about every image that shows something, the same for the same seed: everything that is seen; a comparison, a
    count and a side where there is no doubt; a reason, a neighbour and one half of a pair as second turns; three structures by
    name, one after the other. Raises like `medsegr.qa.builder.build`."""
    sets = read_labelled_sets(data_dir)
    require_knowledge(sets, knowledge)
    found: list[Conversation] = []
    for scene in read_scenes(sets, (split,), root or data_dir):
        if not scene.present:
            continue
        rng = random.Random(f"{seed}:abilities:{scene.source.name}:{scene.image.stem}")
        asker = Asker(scene, knowledge, rng, training=False)
        prefix = f"{scene.source.name}_{scene.image.stem}_a"
        conversations = enumerate(_conversations(asker))
        found += [scene.conversation(f"{prefix}{n:03d}", turns) for n, turns in conversations]
    return found


def _conversations(asker: Asker) -> Iterator[list[Turn]]:
    scene, rng = asker.scene, asker.rng
    places = scene.places
    if scene.everything:
        yield [asker.all()]
    pairs = [(a, b) for a in places for b in places if a < b and _uneven(scene, a, b)]
    if pairs:
        yield [asker.comparison(rng.choice(pairs))]
    if countable := [n for n in scene.present if n in abilities.COUNTED]:
        yield [asker.count(rng.choice(countable))]
    sided = [
        n
        for n, p in places.items()
        if abs(p.column - 0.5) > OFF_MIDDLE and not {"left", "right"} & set(n.split())
    ]
    if sided:
        yield [asker.locate(rng.choice(sided))]
    first = asker.explicit(rng.choice(scene.present))
    yield [first, asker.why(first)]
    beside = {n: near for n in places if (near := abilities.neighbours(places, n))}
    if beside:
        name = rng.choice(sorted(beside))
        direction = rng.choice(sorted(beside[name]))
        yield [asker.explicit(name), asker.beside(direction, beside[name][direction])]
    halves = {n: p for n in scene.present if len(p := parts(asker.knowledge[n], scene)) == 2}
    if halves:
        name = rng.choice(sorted(halves))
        side = rng.choice(sorted(halves[name]))
        yield [asker.explicit(name), asker.side(side, halves[name][side])]
    if len(scene.present) >= TURNS:
        names = rng.sample(scene.present, TURNS)
        yield [asker.explicit(name, follow=n > 0) for n, name in enumerate(names)]


def _uneven(scene: Scene, one: str, other: str) -> bool:
    sizes = sorted((scene.places[one].share, scene.places[other].share))
    return scene.apart(one, other) and sizes[1] >= RATIO * sizes[0]
