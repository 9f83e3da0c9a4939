"""Questions about one scene, one kind at a time: each function draws the wording and gives the fixed
answer."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medsegr.qa import abilities, phrasing
from medsegr.qa.facts import Concept, Fact, KnowledgeBase
from medsegr.qa.scenes import Scene
from medsegr.qa.schema import Turn


@dataclass(frozen=True)
class Asker:
    """Draws turns about a scene. `training`: held-out facts are never used. `rarity`: weights of the structures
    (1 for those that it does not name)."""

    scene: Scene
    knowledge: KnowledgeBase
    rng: random.Random
    training: bool
    rarity: Mapping[str, float] = field(default_factory=dict)

    def pick(self, names: Sequence[str]) -> str:
        """One of the structures, the rare ones more often."""
        return self.rng.choices(names, [self.rarity.get(name, 1.0) for name in names])[0]

    def facts(self, name: str) -> tuple[Fact, ...]:
        """Facts about a structure that this scene may use."""
        concept = self.knowledge[name]
        return concept.training_facts if self.training else concept.facts

    def explicit(self, name: str, follow: bool = False, word: str | None = None) -> Turn:
        """A present structure by name (or by `word`, a synonym)."""
        concept = self.knowledge[name]
        question = phrasing.explicit_question(self.rng, concept, self.scene.study, follow, word)
        return Turn(question, phrasing.explicit_answer(concept), (self.scene.target(name),), "explicit")

    def implicit(self, name: str, fact: Fact | None = None, follow: bool = False) -> Turn:
        """A present structure by what is known about it."""
        concept = self.knowledge[name]
        chosen = fact or self.rng.choice(self.facts(name))
        question = phrasing.implicit_question(self.rng, concept, chosen.text, follow)
        return Turn(
            question,
            phrasing.implicit_answer(concept, chosen.text),
            (self.scene.target(name),),
            "implicit",
            chosen.id,
        )

    def absent(
        self,
        name: str,
        kind: str,
        fact: Fact | None = None,
        follow: bool = False,
        question: str | None = None,
    ) -> Turn:
        """An absent structure, by name or, given a fact, by that, or in words of one's own."""
        concept = self.knowledge[name]
        if question:
            pass
        elif fact is None:
            question = phrasing.explicit_question(self.rng, concept, self.scene.study, follow)
        else:
            question = phrasing.implicit_question(self.rng, concept, fact.text, follow)
        return Turn(
            question,
            phrasing.absent_answer(concept, self.scene.study),
            (),
            kind,
            fact.id if fact else None,
            (name,),
        )

    def multi(self, present: Sequence[str], absent: Sequence[str]) -> Turn:
        """Two or three named structures, in any order; the answer takes the present ones as asked, then the
        absent ones."""
        asked = self.rng.sample([*present, *absent], len(present) + len(absent))
        shown, lacking = [n for n in asked if n in present], [n for n in asked if n in absent]
        question = phrasing.multi_question(self.rng, self._concepts(asked), self.scene.study)
        answer = phrasing.multi_answer(self._concepts(shown), self._concepts(lacking))
        return Turn(question, answer, tuple(map(self.scene.target, shown)), "multi", None, tuple(lacking))

    def all(self) -> Turn:
        """Everything that the scene shows."""
        names = self.scene.everything
        answer = phrasing.all_answer(self._concepts(names), self.scene.study)
        return Turn(
            phrasing.all_question(self.rng, self.scene.study),
            answer,
            tuple(map(self.scene.target, names)),
            "all",
        )

    def side(self, side: str, name: str) -> Turn:
        """After a pair: its left or right part only."""
        question = phrasing.side_question(self.rng, side)
        concept = self.knowledge[name]
        if name in self.scene.present:
            return Turn(question, phrasing.explicit_answer(concept), (self.scene.target(name),), "explicit")
        return Turn(
            question, phrasing.absent_answer(concept, self.scene.study), (), "absent_same_set", None, (name,)
        )

    def comparison(self, present: Sequence[str], absent: Sequence[str] = (), pair: str | None = None) -> Turn:
        """Which of two named structures is larger; `pair` is what both are parts of."""
        one, other = self._concepts(self.rng.sample([*present, *absent], 2))
        question = abilities.comparison_question(self.rng, one, other, self.scene.study, pair)
        shown = [c for c in (one, other) if c.name in present]
        answer = abilities.comparison_answer(shown, self._concepts(absent))
        targets = tuple(self.scene.target(c.name) for c in shown)
        return Turn(question, answer, targets, "comparison", None, tuple(absent))

    def comparison_follow(self, names: Sequence[str]) -> Turn:
        """After an answer with two structures: which is larger, in the order of that answer."""
        answer = abilities.comparison_answer(self._concepts(names), [])
        question = self.rng.choice(abilities.COMPARE_FOLLOW)
        return Turn(question, answer, tuple(map(self.scene.target, names)), "comparison")

    def count(self, name: str, follow: bool = False) -> Turn:
        """How many pieces of a structure there are; it may be absent."""
        concept = self.knowledge[name]
        words = self.rng.choice(abilities.COUNT_FOLLOW) if follow else None
        question = words or abilities.count_question(self.rng, concept, self.scene.study)
        if name not in self.scene.present:
            return self.absent(name, "absent_same_set", question=question)
        return Turn(question, abilities.count_answer(concept), (self.scene.target(name),), "count")

    def locate(self, name: str, follow: bool = False) -> Turn:
        """Left or right; the structure may be absent."""
        concept = self.knowledge[name]
        words = self.rng.choice(abilities.SIDE_FOLLOW) if follow else None
        question = words or abilities.side_question(self.rng, concept, self.scene.study)
        if name not in self.scene.present:
            return self.absent(name, "absent_same_set", question=question)
        return Turn(question, abilities.side_answer(concept), (self.scene.target(name),), "side")

    def why(self, before: Turn) -> Turn:
        """The reason after an answer about one structure."""
        name = before.targets[0].label
        answer = abilities.why_answer(self.knowledge[name], before.kind == "implicit")
        return Turn(self.rng.choice(abilities.WHY), answer, (self.scene.target(name),), "why")

    def beside(self, direction: str, name: str) -> Turn:
        """The neighbour `name` of the structure asked for before."""
        question = self.rng.choice(abilities.BESIDE[direction])
        concept = self.knowledge[name]
        return Turn(question, phrasing.explicit_answer(concept), (self.scene.target(name),), "neighbour")

    def _concepts(self, names: Sequence[str]) -> list[Concept]:
        return [self.knowledge[name] for name in names]
