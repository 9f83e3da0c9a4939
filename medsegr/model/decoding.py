"""What a generated answer may say: only structures that the image seems to show or the question names may be outlined, and what
is said of one is a sentence that the knowledge base has about it.

A small language model that meets a new description would otherwise name a structure of another part of the body, or try to repeat
words that it cannot spell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from medsegr.model.tokens import END, PHRASE_END, PHRASE_START, SEG, token_id

DENIAL = "No"
GOES_ON = (" and", " with", ",", ".", ";")
"""How an answer may go on after a `[SEG]` without saying anything about the structure."""
ADDS = (" and", " with", ",")
"""Those of them after which another structure is outlined."""
OUTLINED = (" is outlined", " are outlined")


@dataclass(frozen=True)
class Limits:
    """`phrases` that may stand between `<p>` and `</p> [SEG]`, each once (empty: any); `most`: so many structures may be outlined
    (0: any number); `sure_denial`: an answer may begin with "No" only if that word's probability is at least this, `decided`: and
    then it must, and outlines nothing; `sure_words`: no later word of a denial may be less likely (whoever generates looks back
    at it: `Generated.weakest`); `reasons`: what may be said of a phrase right after its `[SEG]`; it ends the answer (a
    phrase that is missing: anything)."""

    phrases: tuple[str, ...] = ()
    most: int = 0
    sure_denial: float = 0.0
    sure_words: float = 0.0
    reasons: Mapping[str, Sequence[str]] = field(default_factory=dict)
    decided: bool = False


class Guide:
    """Follows one answer token by token and rules out what `Limits` forbids. Where all has been outlined that may be, nothing
    opens another phrase."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, limits: Limits, spelt: dict[str, list[int]] | None = None
    ) -> None:
        """`spelt`: ids of texts that were spelt for earlier answers; the same sentences come again and again."""
        self.tokenizer, self.limits = tokenizer, limits
        self.spelt = {} if spelt is None else spelt
        self.start, self.end, self.seg = (token_id(tokenizer, t) for t in (PHRASE_START, PHRASE_END, SEG))
        self.denial = self._spell(DENIAL)[0]
        self.stop = token_id(tokenizer, END)
        self.goes_on = {self.stop, *(self._spell(text)[0] for text in GOES_ON)}
        self.adds = {ids[0] for text in ADDS if len(ids := self._spell(text)) == 1}
        self.paths = {p: [*self._spell(p), self.end, *self._spell(f" {SEG}")] for p in limits.phrases}
        self.said: set[str] = set()
        self.first = True
        self.denied = False
        self.drawn_last = False
        self.phrase = ""
        self.drawn = 0
        self.inside: list[int] | None = None
        self.tail: list[int] | None = None
        self.tails: list[list[int]] = []

    def _spell(self, text: str) -> list[int]:
        if text not in self.spelt:
            self.spelt[text] = list(self.tokenizer.encode(text, add_special_tokens=False))
        return self.spelt[text]

    def allow(self, distribution: Tensor) -> Tensor:
        """The distribution [V] over the next token with forbidden tokens at zero."""
        nexts, barred = self._nexts(), self._barred()
        if self.first:
            if float(distribution[self.denial]) < self.limits.sure_denial:
                barred = {*barred, self.denial}
            elif self.limits.decided:
                nexts = {self.denial}
        if nexts is None:
            index = torch.tensor(sorted(barred), dtype=torch.long, device=distribution.device)
            return distribution.index_fill(0, index, 0.0) if barred else distribution
        mask = torch.zeros_like(distribution)
        mask[sorted(nexts)] = 1.0
        return distribution * mask + mask * 1e-12

    @property
    def closed(self) -> bool:
        """Whether nothing more may be outlined: it was denied, or as much was outlined as may be."""
        full = bool(self.limits.most) and self.drawn >= self.limits.most
        return self.denied or full or (bool(self.paths) and self.said.issuperset(self.paths))

    def _barred(self) -> set[int]:
        """Tokens that would outline something more where nothing more may be."""
        if not self.closed:
            return set()
        return {self.start, self.seg, *(self.adds if self.drawn_last else ())}

    def _nexts(self) -> set[int] | None:
        """Tokens that may come next; None: any."""
        if self.inside is not None and self.paths:
            left = [path for phrase, path in self.paths.items() if phrase not in self.said]
            return _continuations(left, self.inside)
        if self.tail is None:
            return None
        nexts = _continuations(self.tails, self.tail)
        return nexts if self.tail else nexts | (self.goes_on - self._barred())

    def step(self, token: int) -> None:
        """The token that was chosen."""
        self.denied = self.denied or (self.first and self.limits.decided and token == self.denial)
        self.first = False
        self.drawn_last = token == self.seg
        if self.tail is not None:
            self.tail.append(token)
            if not _continuations(self.tails, self.tail):  # said to its end, or something else was begun
                self.tail = None
        if token == self.start:
            self.inside, self.phrase = [], ""
        elif token == self.seg:
            self.inside = None
            self.said.add(self.phrase)
            if self.phrase in self.limits.reasons:
                known = (
                    self.limits.reasons[self.phrase] if self.drawn == 0 else ()
                )  # of several, none is explained
                said = [[*self._spell(f" {reason}"), self.stop] for reason in known]
                self.tails, self.tail = [*said, *(self._spell(text) for text in OUTLINED)], []
            self.phrase = ""
            self.drawn += 1
        elif self.inside is not None:
            if token == self.end:
                self.phrase = str(self.tokenizer.decode(self.inside)).strip()
            self.inside.append(token)

    def run(self, token: int, limit: int) -> list[int]:
        """The token that was chosen and all that follow without a choice, at most `limit`: they can be read in one pass."""
        tokens = [token]
        self.step(token)
        while len(tokens) < limit and (following := self.forced()) is not None:
            tokens.append(following)
            self.step(following)
        return tokens

    def forced(self) -> int | None:
        """The one token that may come next, if there is but one: it needs no thought."""
        nexts = self._nexts()
        return next(iter(nexts)) if nexts and len(nexts) == 1 else None


def _continuations(paths: Sequence[list[int]], written: list[int]) -> set[int]:
    """Tokens by which some path goes on after `written`."""
    depth = len(written)
    return {path[depth] for path in paths if len(path) > depth and path[:depth] == written}
