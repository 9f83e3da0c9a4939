"""Questions about one scene, one kind at a time: each function draws the wording and gives the fixed
answer."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medsegr.qa import phrasing
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

    def absent(self, name: str, kind: str, fact: Fact | None = None, follow: bool = False) -> Turn:
        """An absent structure, by name or, given a fact, by that."""
        concept = self.knowledge[name]
        if fact is None:
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

    def _concepts(self, names: Sequence[str]) -> list[Concept]:
        return [self.knowledge[name] for name in names]
