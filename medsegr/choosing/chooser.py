"""Choose the next image: keep what may be offered, ask a strategy, and note that the image is taken."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from medsegr.choosing.choice import Choice, ChoosingError, Field, NothingLeft
from medsegr.choosing.history import asked_since, corrected_images
from medsegr.choosing.look_store import LookStore
from medsegr.choosing.skips import Opened, Skips
from medsegr.choosing.strategies import DEFAULT, STRATEGIES
from medsegr.rounds.database import Database

LOOKS, SKIPS = "looks", "skipped.jsonl"


class Chooser:
    """Thread-safe. `version` names the model in charge (None while there is none); its looks and no other's are used."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        version: Callable[[], str | None],
        minutes: float = 30.0,
        rng: random.Random | None = None,
    ) -> None:
        self.database, self.version = database, version
        self.looks, self.skips = LookStore(folder / LOOKS), Skips(folder / SKIPS)
        self.opened = Opened(minutes)
        self._rng, self._lock = rng or random.Random(), threading.Lock()

    def next(self, images: Sequence[str], strategy: str = "") -> Choice:
        """One of `images` (those without a label), which counts as opened from now on.

        Never one with a correction, a skipped one, one opened in the last minutes by anybody, or one that could not be read.
        Raises `ChoosingError` for an unknown strategy and `NothingLeft`.
        """
        name = strategy or DEFAULT
        if name not in STRATEGIES:
            raise ChoosingError(f"There is no such strategy; known are {', '.join(STRATEGIES)}.")
        with self._lock:
            looks = self.looks.looks(self.version())
            corrected, skipped = corrected_images(self.database), self.skips.images()
            opened = self.opened.images() | asked_since(self.database, self.opened.minutes)
            unread = {image for image, look in looks.items() if look.trouble}
            free = [image for image in images if image not in corrected | skipped]
            offered = [image for image in free if image not in opened | unread]
            if not offered:
                raise NothingLeft(self._nothing(images, free, opened))
            usable = {image: look for image, look in looks.items() if not look.trouble}
            known = sorted(looks.keys() - set(images) | corrected | skipped | opened)
            choice = STRATEGIES[name](Field(offered, usable, known, self._rng))
            self.opened.note(choice.image)
            return choice

    def wanted(self, images: Sequence[str], most: int) -> list[str]:
        """Those of the first `most` images without a verdict that the model has not looked at yet, in their order."""
        judged = corrected_images(self.database) | self.skips.images()
        looks = self.looks.looks(self.version())
        free = [image for image in images if image not in judged]
        return [image for image in free[:most] if image not in looks]

    def _nothing(self, images: Sequence[str], free: Sequence[str], opened: frozenset[str]) -> str:
        if not images:
            return "Every image has a label; there is nothing left to choose from."
        if not free:
            return f"All {len(images)} images without a label were judged or skipped; there is nothing left to choose from."
        busy = sum(image in opened for image in free)
        if busy:
            minutes = f"{self.opened.minutes:g} minutes"
            return f"All that is left ({busy} images) was opened within the last {minutes}; please try again later."
        return f"None of the {len(free)} images that are left can be read; the model's look at them failed."
