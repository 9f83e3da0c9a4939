"""A choice and what it is made from. Plain values; every strategy is a function from a `Field` to a `Choice`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medsegr.choosing.look import Look
from medsegr.errors import MedSegRError


class ChoosingError(MedSegRError):
    """There is no such strategy."""


class NothingLeft(ChoosingError):
    """No image may be offered now; the sentence counts why."""


@dataclass(frozen=True)
class Choice:
    """An image, the strategy that chose it and one or two sentences that say why."""

    image: str
    why: str
    strategy: str


@dataclass(frozen=True)
class Field:
    """What a strategy chooses from: `images` may be offered (at least one); `looks` holds those of them, and of the images in
    `known`, that the model in charge has looked at. `known` were labelled, skipped or opened: a choice should differ from them.
    """

    images: Sequence[str]
    looks: Mapping[str, Look]
    known: Sequence[str]
    rng: random.Random

    @property
    def looked(self) -> list[Look]:
        """The looks at images that may be offered, in their order."""
        return [self.looks[image] for image in self.images if image in self.looks]

    @property
    def share(self) -> str:
        """How many of the images are compared, in words."""
        looked, total = len(self.looked), len(self.images)
        return f"all {total}" if looked == total else f"{looked} of {total}"
