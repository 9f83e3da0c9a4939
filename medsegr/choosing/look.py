"""What the model makes of one image before anybody asks about it. Plain values that fit on a line of JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """A look of the model `version` at `image`.

    seen: (structure, probability) that the overview thinks likely, most likely first. entropy: bits that its yes/no decisions
    about this image leave open (is a structure there, is an outline good), 0 for a model that is sure of everything; doubted: the
    structure whose presence is most open. mismatch in [0, 1]: how far the answers' text and the masks (and what the image seems
    to show) contradict each other; paraphrase in [0, 1]: 1 - Dice between the masks of two ways to ask for the same; each with a
    clause in words that names the worst. embedding: a vector of length 1, or () where the model gives none. trouble: why it could
    not be looked at; such an image is never offered.
    """

    image: str
    version: str
    seen: tuple[tuple[str, float], ...] = ()
    entropy: float = 0.0
    doubted: tuple[str, float] | None = None
    mismatch: float = 0.0
    mismatch_why: str = ""
    paraphrase: float = 0.0
    paraphrase_why: str = ""
    embedding: tuple[float, ...] = ()
    trouble: str = ""

    @property
    def disagreement(self) -> float:
        """Mean of the two ways in which the model contradicts itself, in [0, 1]."""
        return (self.mismatch + self.paraphrase) / 2

    def to_json(self) -> dict[str, Any]:
        """Plain data; the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Look:
        """Raises `KeyError`, `TypeError` or `ValueError` for anything that `to_json` does not write."""
        fields = dict(data)
        fields["seen"] = tuple((str(name), float(chance)) for name, chance in fields["seen"])
        doubted = fields["doubted"]
        fields["doubted"] = None if doubted is None else (str(doubted[0]), float(doubted[1]))
        fields["embedding"] = tuple(float(value) for value in fields["embedding"])
        for name in ("entropy", "mismatch", "paraphrase"):
            fields[name] = float(fields[name])
            if not math.isfinite(fields[name]):
                raise ValueError(f"`{name}` of a look is not finite.")
        return cls(**fields)


def bits(probability: float) -> float:
    """Binary entropy H(p) = -p log2 p - (1 - p) log2 (1 - p), in [0, 1]; 0 for 0, 1 and what is no probability."""
    p = probability
    if not 0.0 < p < 1.0:
        return 0.0
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)
