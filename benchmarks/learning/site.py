"""What a place that learns from corrections can do, be it a server or the library in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .clinicians import Clinicians
from .streams import Item


@dataclass(frozen=True)
class Corrected:
    """An image was asked about and corrected: Dice of the answer by structure against what was sent, and against the truth."""

    image: str
    editor: str
    flaw: str
    question: str
    sent: dict[str, float]
    true: dict[str, float]


@dataclass(frozen=True)
class RoundResult:
    """How a round ended. `version` is in charge from now on; `decision` holds the gate's figures."""

    round_id: int
    status: str
    sentence: str
    seconds: float
    version: str
    challenger: str | None
    decision: dict[str, Any] = field(default_factory=dict)


class Site(Protocol):
    """Asks, learns, and says which version is in charge."""

    def choose(self, items: Sequence[Item], strategy: str) -> Item:
        """The next of these images to be corrected."""

    def correct(self, item: Item, clinicians: Clinicians) -> Corrected:
        """Ask about the image and send what the clinicians make of the answer."""

    def run_round(self) -> RoundResult:
        """Run a round and wait until it has ended."""

    def in_charge(self) -> tuple[str, Path]:
        """Name and directory of the version in charge."""

    def close(self) -> None:
        """Let go of everything."""
