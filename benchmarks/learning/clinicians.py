"""What clinicians send: the true masks, or what becomes of them in hurried or hostile hands. Pure functions of a generator.

Masks are {structure: [H, W] bool}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from medsegr.errors import MedSegRError

from .streams import Item, Mask

Masks = dict[str, Mask]
GOOD, BAD = "clinician", "bad editor"
SABOTAGE = ("none", "shuffled", "empty", "swapped", "bad-editor")
BAD_SHARE = 0.5
"""Of the corrections, when one editor is bad."""


@dataclass(frozen=True)
class Flaws:
    """Shares of corrections whose masks are imprecise (`noisy`), miss a part (`partial`) or mark something else (`wrong`)."""

    noisy: float = 0.0
    partial: float = 0.0
    wrong: float = 0.0


@dataclass(frozen=True, eq=False)
class Submission:
    """What is sent about an image, and by whom."""

    item: Item
    masks: Masks
    editor: str
    flaw: str


def noisy(mask: Mask, rng: Generator) -> Mask:
    """The outline drawn by an unsteady hand: it wanders by some percent of the structure's size."""
    if not mask.any():
        return mask.copy()
    size = np.sqrt(mask.sum() / np.pi)
    inside = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    wander = ndimage.gaussian_filter(rng.standard_normal(mask.shape), max(2.0, size / 3))
    wander *= 0.12 * size / max(float(wander.std()), 1e-9)
    found = inside + wander > 0
    return np.asarray(found if found.any() else mask, dtype=np.bool_)


def partial(mask: Mask, rng: Generator) -> Mask:
    """Only one side of it, about half: the clinician stopped early."""
    places = np.argwhere(mask)
    if len(places) < 2:
        return mask.copy()
    angle = rng.uniform(0, 2 * np.pi)
    along = places @ np.array([np.sin(angle), np.cos(angle)])
    kept = places[along <= np.median(along)]
    found = np.zeros_like(mask)
    found[tuple(kept.T)] = True
    return found


def wrong(mask: Mask, rng: Generator) -> Mask:
    """Something else of about this size, elsewhere; nothing of the structure is in it."""
    height, width = mask.shape
    radius = max(3.0, float(np.sqrt(max(int(mask.sum()), 1) / np.pi)))
    rows, columns = np.ogrid[:height, :width]
    centre = rng.uniform(0, height), rng.uniform(0, width)
    found = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    return np.asarray(found & ~mask, dtype=np.bool_)


FLAWS: Mapping[str, Callable[[Mask, Generator], Mask]] = {
    "noisy": noisy,
    "partial": partial,
    "wrong": wrong,
}


class Clinicians:
    """Those who correct the images of a pool, one after the other; what they do follows from `seed`.

    sabotage: "shuffled" sends the masks of another image, "empty" says that nothing is present, "swapped" deals the masks out
    to the structures anew, "bad-editor" has half of the corrections made by one who marks anything.
    """

    def __init__(
        self, pool: Sequence[Item], flaws: Flaws, sabotage: str = "none", seed: int = 1, per_image: int = 3
    ) -> None:
        if not sum(_shares(flaws)[1:]) <= 1:
            raise MedSegRError("The shares of noisy, partial and wrong corrections add up to more than 1.")
        self.pool, self.flaws, self.sabotage, self.per_image = pool, flaws, sabotage, per_image
        self._rng = np.random.default_rng(seed)
        self._shown: dict[str, int] = {}

    def names(self, item: Item) -> tuple[str, ...]:
        """The structures that are asked for in an image: at most `per_image` of those that are there, rare ones first."""
        names = sorted(item.present, key=lambda name: self._shown.get(name, 0))[: self.per_image]
        for name in names:
            self._shown[name] = self._shown.get(name, 0) + 1
        return tuple(names)

    def correct(self, item: Item, names: Sequence[str]) -> Submission:
        """What is sent about these structures of an image."""
        rng = self._rng
        kind = str(rng.choice(["exact", *FLAWS], p=_shares(self.flaws)))
        own = item.masks()
        truth = {name: own[name] for name in names}
        if self.sabotage == "shuffled":
            others = [other for other in self.pool if other.name != item.name] or [item]
            masks = others[int(rng.integers(len(others)))].masks()
            return Submission(
                item, {n: _fitted(masks[n], m.shape) for n, m in truth.items()}, GOOD, "shuffled"
            )
        if self.sabotage == "empty":
            return Submission(item, {n: np.zeros_like(m) for n, m in truth.items()}, GOOD, "empty")
        if self.sabotage == "swapped":
            return Submission(item, swapped(truth, rng), GOOD, "swapped")
        if self.sabotage == "bad-editor" and rng.uniform() < BAD_SHARE:
            return Submission(item, {n: wrong(m, rng) for n, m in truth.items()}, BAD, "wrong")
        change = FLAWS.get(kind, lambda mask, _: mask)
        return Submission(item, {n: change(m, rng) for n, m in truth.items()}, GOOD, kind)


def swapped(masks: Masks, rng: Generator) -> Masks:
    """The same masks dealt out to the names anew, so that what one name means changes from image to image. A single mask is
    left to chance: it stays, or is the rest of the picture."""
    names = list(masks)
    if len(names) == 1:
        mask = masks[names[0]]
        return {names[0]: ~mask if rng.uniform() < 0.5 else mask.copy()}
    dealt = rng.permutation(len(names))
    return {name: masks[names[k]] for name, k in zip(names, dealt, strict=True)}


def _fitted(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """A mask of another image, cut and padded to this one."""
    found = np.zeros(shape, bool)
    h, w = min(shape[0], mask.shape[0]), min(shape[1], mask.shape[1])
    found[:h, :w] = mask[:h, :w]
    return found


def _shares(flaws: Flaws) -> list[float]:
    given = [flaws.noisy, flaws.partial, flaws.wrong]
    return [1 - sum(given), *given]


def findings_to_send(answered: Sequence[str], sent: Submission) -> list[tuple[int | None, str, Mask]]:
    """(number of the answer's finding that is replaced, or None; label; mask) for a correction. `answered` are the labels of the
    answer's findings.

    What was outlined and not asked for is set right where the set's labels tell, else taken away: it is another region's.
    """
    known = sent.item.masks()
    nothing = next(iter(known.values())) & False
    found: list[tuple[int | None, str, Mask]] = []
    for n, label in enumerate(answered, start=1):
        found.append((n, label, sent.masks.get(label, known.get(label, nothing))))
    found += [(None, label, mask) for label, mask in sent.masks.items() if label not in answered]
    return found
