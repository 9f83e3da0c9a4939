"""Which of the sentences that are known of a structure explain what was asked: those that mean nearly the same as the question.

The answerer asks; the language model chooses among them. Nothing here looks at an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medsegr.model.question import SentenceEncoder
from medsegr.qa.facts import Concept

NEAREST = 3
"""So many sentences at most are left to the language model."""
MARGIN = 0.15
"""A sentence whose cosine with the question is this much below the best one's explains something else."""
RELATED = 0.3
"""Where no sentence has this cosine with the question ("why?"), all of them are left."""


def sayable(said: Mapping[str, Sequence[str]], concepts: Sequence[Concept]) -> dict[str, tuple[str, ...]]:
    """The sentences `said` of each structure without those that may only be asked with, see `Fact.only_asked`."""
    asked = {f"{fact.text}." for concept in concepts for fact in concept.facts if fact.only_asked}
    return {name: tuple(s for s in sentences if s not in asked) for name, sentences in said.items()}


class Reasons:
    """The sentences about each structure, `said`, and their vectors. A structure's sentences are embedded when they are first
    compared with a question, and kept."""

    def __init__(self, said: Mapping[str, Sequence[str]], encoder: SentenceEncoder | None) -> None:
        """`encoder`: None leaves all sentences to the model, whatever is asked."""
        self.said, self.encoder = said, encoder
        self._vectors: dict[str, Tensor] = {}

    def to(self, question: str) -> Mapping[str, Sequence[str]]:
        """What may be said of each structure in answer to `question`; looked for when a structure is looked up, not before."""
        return _Nearest(self, question) if self.encoder and question.strip() else self.said

    def nearest(self, name: str, question: str) -> tuple[str, ...]:
        """The sentences about `name` that are nearest to `question`, best first; all of them, in their order, where none is
        near. Raises `KeyError` for a structure of which nothing is known."""
        said = tuple(self.said[name])
        if self.encoder is None or len(said) < 2:
            return said
        if name not in self._vectors:
            self._vectors[name] = _vectors(self.encoder, said)
        near: list[float] = (self._vectors[name] @ _vectors(self.encoder, [question.strip()])[0]).tolist()
        best = max(near)
        if best < RELATED:
            return said
        ranked = sorted(zip(near, said, strict=True), key=lambda pair: -pair[0])
        return tuple(sentence for cosine, sentence in ranked[:NEAREST] if cosine >= best - MARGIN)


@dataclass(frozen=True)
class _Nearest(Mapping[str, Sequence[str]]):
    reasons: Reasons
    question: str

    def __getitem__(self, name: str) -> Sequence[str]:
        return self.reasons.nearest(name, self.question)

    def __contains__(self, name: object) -> bool:
        return name in self.reasons.said

    def __iter__(self) -> Iterator[str]:
        return iter(self.reasons.said)

    def __len__(self) -> int:
        return len(self.reasons.said)


def _vectors(encoder: SentenceEncoder, sentences: Sequence[str]) -> Tensor:
    """[n, D] float32 unit vectors, the mean over each sentence's words."""
    return F.normalize(torch.stack([states[0].float() for states in encoder.encode(sentences)]), dim=1)
