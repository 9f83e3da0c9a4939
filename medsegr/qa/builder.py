"""Builds MedSeg-QA from labelled folders and the knowledge base: training conversations and the fixed
evaluation questions.

The same seed gives the same file. Facts that are held out never reach a training conversation.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from medsegr.errors import MedSegRError
from medsegr.qa import abilities
from medsegr.qa.facts import Concept, Fact, KnowledgeBase, load_knowledge
from medsegr.qa.folders import read_labelled_sets
from medsegr.qa.reader import write_qa
from medsegr.qa.scenes import Scene, parts, read_scenes, require_knowledge
from medsegr.qa.schema import Conversation, Turn
from medsegr.qa.turns import Asker

ABSENT_KINDS = ("absent_same_set", "absent_elsewhere")


@dataclass(frozen=True)
class Mix:
    """Weights of the first question's kind (kinds that an image does not allow are left out), and shares in
    [0, 1]: conversations of two or three turns, absent structures in follow-ups and among several names,
    facts in place of names where both are possible, synonyms in explicit questions, images drawn evenly
    rather than by the number of their targets, follow-ups about what was just found, absent structures in
    comparisons, counts and sides."""

    explicit: float = 0.28
    implicit: float = 0.40
    multi: float = 0.09
    all: float = 0.05
    absent_same_set: float = 0.22
    absent_elsewhere: float = 0.07
    comparison: float = 0.05
    count: float = 0.03
    side: float = 0.04
    several_turns: float = 0.35
    absent_follow_up: float = 0.12
    absent_in_multi: float = 0.3
    described: float = 0.5
    synonym: float = 0.15
    even_images: float = 0.4
    about_before: float = 0.45
    absent_measured: float = 0.12


def build(
    data_dir: Path,
    knowledge: KnowledgeBase,
    seed: int,
    count: int,
    splits: Sequence[str] = ("train", "val"),
    licence: str = "any",
    mix: Mix | None = None,
    root: Path | None = None,
) -> Iterator[Conversation]:
    """`count` conversations about the images of `splits`; paths are relative to `root` (default `data_dir`).

    Raises `MedSegRError` before the first conversation if the folders are broken or a target has no knowledge
    base entry.
    """
    if count < 1:
        raise MedSegRError(f"Count is {count}; expected at least one conversation.")
    sets = read_labelled_sets(data_dir, licence)
    require_knowledge(sets, knowledge)
    scenes = [scene for scene in read_scenes(sets, splits, root or data_dir) if scene.askable]
    if not scenes:
        raise MedSegRError(
            f"{data_dir} has no image to ask about in the splits {', '.join(splits)}; expected at least one."
        )
    return _conversations(scenes, knowledge, seed, count, mix or Mix())


def _conversations(
    scenes: Sequence[Scene], knowledge: KnowledgeBase, seed: int, count: int, mix: Mix
) -> Iterator[Conversation]:
    order = random.Random(f"{seed}:order").sample(range(len(scenes)), len(scenes))
    rarity = _rarity(scenes)
    weights = list(itertools.accumulate(_weight(scene, rarity) for scene in scenes))
    turn_of_order = 0
    for index in range(count):
        rng = random.Random(f"{seed}:{index}")
        if rng.random() < mix.even_images or weights[-1] == 0:
            scene, turn_of_order = scenes[order[turn_of_order % len(order)]], turn_of_order + 1
        else:
            scene = rng.choices(scenes, cum_weights=weights)[0]
        asker = Asker(scene, knowledge, rng, scene.image.split == "train", rarity)
        yield scene.conversation(f"{scene.source.name}_{scene.image.stem}_q{index:06d}", _turns(asker, mix))


def _rarity(scenes: Sequence[Scene]) -> dict[str, float]:
    """How much more often a structure is drawn for being seen in few images: one over the root of their number."""
    shown = Counter(name for scene in scenes for name in scene.present)
    return {name: number**-0.5 for name, number in shown.items()}


def _weight(scene: Scene, rarity: Mapping[str, float]) -> float:
    """How often an image is drawn: more for many targets (by the root of their number) and for rare ones."""
    number = len(scene.present)
    return sum(rarity[name] for name in scene.present) / number**0.5 if number else 0.0


def _turns(asker: Asker, mix: Mix) -> list[Turn]:
    rng = asker.rng
    turns = [_first_turn(asker, mix)]
    if rng.random() < mix.several_turns:
        for _ in range(rng.choice((1, 1, 2))):
            turns += _follow_up(asker, mix, turns)
    return turns


def _first_turn(asker: Asker, mix: Mix) -> Turn:
    scene, rng = asker.scene, asker.rng
    possible = {
        "explicit": bool(scene.present),
        "implicit": any(asker.facts(name) for name in scene.present),
        "multi": _can_list(scene),
        "all": bool(scene.everything) or scene.source.exhaustive,
        "absent_same_set": bool(scene.missing),
        "absent_elsewhere": bool(scene.impossible),
        "comparison": bool(_comparable(scene)),
        "count": bool(_countable(scene.present)),
        "side": bool(_sideless(scene.present)),
    }
    kinds = [kind for kind, allowed in possible.items() if allowed]
    weights = [getattr(mix, kind) for kind in kinds]
    kind = rng.choices(kinds, weights if any(weights) else None)[0]
    if kind == "explicit":
        name = asker.pick(scene.present)
        word = _synonym(rng, asker.knowledge[name], asker.knowledge) if rng.random() < mix.synonym else None
        return asker.explicit(name, word=word)
    if kind == "implicit":
        return asker.implicit(asker.pick([n for n in scene.present if asker.facts(n)]))
    if kind == "multi":
        return _multi(asker, mix)
    if kind == "comparison":
        return _comparison(asker, mix)
    if kind in {"count", "side"}:
        choose, ask = (_countable, asker.count) if kind == "count" else (_sideless, asker.locate)
        absent = choose(scene.missing) if rng.random() < mix.absent_measured else []
        return ask(asker.pick(absent or choose(scene.present)))
    return asker.all() if kind == "all" else _absent(asker, mix, kind)


def _follow_up(asker: Asker, mix: Mix, turns: Sequence[Turn]) -> list[Turn]:
    """One more question, or none where nothing is left to ask."""
    scene, rng = asker.scene, asker.rng
    if rng.random() < mix.about_before and (about := _about_before(asker, turns[-1])):
        return [about]
    pair = _pair_before(asker, turns[-1])
    if pair and rng.random() < 0.6:
        side = rng.choice(sorted(pair))
        return [asker.side(side, pair[side])]
    asked = {n for turn in turns for n in (*(t.label for t in turn.targets), *turn.absent)}
    fresh = [n for n in scene.present if n not in asked]
    kinds = [
        k
        for k, names in zip(ABSENT_KINDS, (scene.missing, scene.impossible), strict=True)
        if set(names) - asked
    ]
    if kinds and (not scene.present or rng.random() < mix.absent_follow_up):
        return [_absent(asker, mix, rng.choice(kinds), asked)]
    if not scene.present:
        return []
    name = asker.pick(fresh or scene.present)
    if asker.facts(name) and rng.random() < mix.described:
        return [asker.implicit(name, follow=True)]
    return [asker.explicit(name, follow=True)]


def _about_before(asker: Asker, turn: Turn) -> Turn | None:
    """A question about what the last answer outlined, where it makes sense."""
    scene, rng = asker.scene, asker.rng
    names = [target.label for target in turn.targets]
    if turn.absent:
        return None
    if len(names) == 2 and turn.kind == "multi":
        return asker.comparison_follow(names)
    if len(names) != 1:
        return None
    name = names[0]
    beside = abilities.neighbours(scene.places, name) if name in scene.places else {}
    possible = {
        "why": 0 if turn.kind == "why" else 2,
        "side": 2 if turn.kind != "side" and _sideless(names) else 0,
        "count": 3 if turn.kind != "count" and _countable(names) else 0,
        "beside": 3 if beside else 0,
    }
    if not any(possible.values()):
        return None
    kind = rng.choices(list(possible), list(possible.values()))[0]
    if kind == "why":
        return asker.why(turn)
    if kind == "beside":
        direction = rng.choice(sorted(beside))
        return asker.beside(direction, beside[direction])
    return asker.locate(name, follow=True) if kind == "side" else asker.count(name, follow=True)


def _countable(names: Sequence[str]) -> list[str]:
    """Structures whose pieces can be counted."""
    return [name for name in names if name in abilities.COUNTED]


def _sideless(names: Sequence[str]) -> list[str]:
    """Structures whose name does not say its side."""
    return [name for name in names if not {"left", "right"} & set(name.split())]


def _comparison(asker: Asker, mix: Mix) -> Turn:
    """Two structures that have nothing in common: the halves of a pair half of the time, or one that is absent."""
    scene, rng = asker.scene, asker.rng
    pairs = [n for n in abilities.PAIRS if n in scene.present and len(parts(asker.knowledge[n], scene)) == 2]
    if pairs and rng.random() < 0.5:
        pair = rng.choice(pairs)
        halves = list(parts(asker.knowledge[pair], scene).values())
        shown = [n for n in halves if n in scene.present]
        if shown:
            return asker.comparison(shown, [n for n in halves if n not in shown], pair)
    names = _comparable(scene)
    one = asker.pick(names)
    lacking = [n for n in scene.missing if scene.apart(n, one)]
    if lacking and rng.random() < mix.absent_measured:
        return asker.comparison([one], [rng.choice(lacking)])
    return asker.comparison([one, rng.choice([n for n in names if scene.apart(n, one)])])


def _comparable(scene: Scene) -> list[str]:
    """Structures that have nothing in common with some other one in the image."""
    return [n for n in scene.places if any(scene.apart(n, other) for other in scene.places)]


def _pair_before(asker: Asker, turn: Turn) -> dict[str, str]:
    if len(turn.targets) != 1 or turn.absent:
        return {}
    return parts(asker.knowledge[turn.targets[0].label], asker.scene)


def _absent(asker: Asker, mix: Mix, kind: str, asked: frozenset[str] | set[str] = frozenset()) -> Turn:
    """Half of the structures of other regions are drawn by name, half by region first, so that no set with
    many targets prevails."""
    rng, scene = asker.rng, asker.scene
    names = [n for n in (scene.missing if kind == "absent_same_set" else scene.impossible) if n not in asked]
    if kind == "absent_elsewhere" and rng.random() < 0.5:
        region = rng.choice(sorted({asker.knowledge[n].region for n in names}))
        names = [n for n in names if asker.knowledge[n].region == region]
    name = rng.choice(names)
    facts = _telling(asker.facts(name), kind)
    fact = rng.choice(facts) if facts and rng.random() < mix.described else None
    return asker.absent(name, kind, fact, follow=bool(asked))


def _telling(facts: Sequence[Fact], kind: str) -> list[Fact]:
    """Facts by which a structure may be asked for in vain: a mere look could fit something of another
    region."""
    return [
        fact for fact in facts if kind == "absent_same_set" or fact.kind not in {"appearance", "confusion"}
    ]


def _can_list(scene: Scene) -> bool:
    return bool(scene.present) and (
        bool(scene.missing) or any(scene.apart(a, b) for a, b in itertools.combinations(scene.present, 2))
    )


def _multi(asker: Asker, mix: Mix) -> Turn:
    scene, rng = asker.scene, asker.rng
    size = rng.choice((2, 2, 3))
    starts = [n for n in scene.present if any(scene.apart(n, other) for other in scene.present)]
    present = [asker.pick(starts or scene.present)]
    for name in rng.sample(scene.present, len(scene.present)):
        if len(present) < size and all(scene.apart(name, other) for other in present):
            present.append(name)
    absent: list[str] = []
    if scene.missing and (len(present) < 2 or rng.random() < mix.absent_in_multi):
        kept = rng.randint(1, min(len(present), size - 1))
        present = present[:kept]
        absent = rng.sample(scene.missing, min(size - kept, len(scene.missing)))
    return asker.multi(present, absent)


def _synonym(rng: random.Random, concept: Concept, knowledge: KnowledgeBase) -> str | None:
    """A synonym that names this structure only and reads like a name: an abbreviation, another spelling, a
    term of several words."""

    def is_name(word: str) -> bool:
        spelling = SequenceMatcher(None, word.lower(), concept.name.lower()).ratio() > 0.85
        term = " " in word and not word.startswith("both ")
        adjective = word.endswith(("al", "ic", "ar", "ous"))
        return (word.isupper() or spelling or term) and not adjective and len(knowledge.find(word)) == 1

    names = [
        word for word in concept.synonyms if is_name(word) and _is_plural(word) == _is_plural(concept.name)
    ]
    return rng.choice(names) if names else None


def _is_plural(name: str) -> bool:
    last = name.split()[-1].lower()
    return last in {"teeth", "nuclei"} or (last.endswith("s") and not last.endswith(("us", "as", "is", "ss")))


def evaluation_questions(
    data_dir: Path,
    knowledge: KnowledgeBase,
    split: str = "val",
    seed: int = 1,
    root: Path | None = None,
) -> list[Conversation]:
    """The fixed questions of an evaluation, one turn each: every present target of every image by name and by
    a held-out fact (which one rotates with `seed` and the image), and one absent structure per image, by name
    and again by a held-out fact: of the same set or of another in equal parts where both may be asked, among
    those labelled in some training image. Raises like `build`."""
    sets = read_labelled_sets(data_dir)
    require_knowledge(sets, knowledge)
    trained = {name for s in sets if any(i.split == "train" for i in s.images) for name in s.targets}
    found: list[Conversation] = []
    for number, scene in enumerate(read_scenes(sets, (split,), root or data_dir)):
        asker = Asker(
            scene, knowledge, random.Random(f"{seed}:{scene.source.name}:{scene.image.stem}"), training=False
        )
        turns = []
        for position, name in enumerate(scene.present):
            turns.append(asker.explicit(name))
            if fact := _held_out(knowledge[name], seed + number + position):
                turns.append(asker.implicit(name, fact))
        turns += _absent_question(asker, trained, seed + number)
        prefix = f"{scene.source.name}_{scene.image.stem}_e"
        found += [scene.conversation(f"{prefix}{n:03d}", [turn]) for n, turn in enumerate(turns)]
    return found


def _held_out(concept: Concept, turn: int, kind: str = "absent_same_set") -> Fact | None:
    facts = _telling(concept.held_out_facts, kind)
    return facts[turn % len(facts)] if facts else None


def _absent_question(asker: Asker, trained: set[str], turn: int) -> list[Turn]:
    scene = asker.scene
    legal = {
        kind: [name for name in names if name in trained]
        for kind, names in zip(ABSENT_KINDS, (scene.missing, scene.impossible), strict=True)
    }
    kinds = [kind for kind, names in legal.items() if names]
    if not kinds:
        return []
    kind = asker.rng.choice(kinds)
    name = asker.rng.choice(legal[kind])
    fact = _held_out(asker.knowledge[name], turn, kind)
    return [asker.absent(name, kind, None), *([asker.absent(name, kind, fact)] if fact else [])]


def build_file(
    data_dir: Path,
    out: Path,
    seed: int = 1,
    count: int = 30_000,
    splits: Sequence[str] = ("train", "val"),
    licence: str = "any",
    extra_knowledge: Path | None = None,
    mix: Mix | None = None,
) -> int:
    """Build a MedSeg-QA file with paths relative to its folder; returns the number of conversations. Raises
    `MedSegRError`."""
    knowledge = load_knowledge(extra_knowledge)
    return write_qa(out, build(data_dir, knowledge, seed, count, splits, licence, mix, root=out.parent))
