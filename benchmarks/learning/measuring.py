"""What a version has learnt and what it forgot: Dice of free answers to questions by name, on images that nobody corrected."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medsegr.evaluation.metrics import dice, mean_within_then_over, share
from medsegr.files import write_whole
from medsegr.predictor import Predictor

from .streams import Item, Mask, items_of, read_dataset
from .wording import measured_question

SMALL_SET, MIN_CASES = 5, 3
"""Sets with fewer images, and targets with fewer cases, are no part of a mean."""
MANY_CASES = 10
"""A target with as many cases must not lose more than the margin."""


@dataclass(frozen=True)
class Score:
    """One question by name about one image, and the Dice of what was outlined."""

    dataset: str
    target: str
    patient: str
    image: str
    dice: float


def outlined(predictor: Predictor, question: str, size: tuple[int, int]) -> Mask:
    """Everything that the answer outlines, [H, W] bool; nothing if it outlines nothing."""
    union = np.zeros(size, np.bool_)
    for finding in predictor.ask(question).findings:
        union |= finding.mask
    return union


def measure(predictor: Predictor, dataset: str, items: Iterable[Item]) -> list[Score]:
    """Ask for every structure that is present in each of the images."""
    found = []
    for item in items:
        masks = item.masks()
        predictor.set_image(item.picture())
        for name in item.present:
            question = measured_question(name, f"{item.name}/{name}")
            mask = outlined(predictor, question, masks[name].shape)
            found.append(Score(dataset, name, item.patient, item.name, float(dice(mask, masks[name]))))
    return found


def measure_sets(predictor: Predictor, data: Path, every: int) -> list[Score]:
    """The same on every `every`-th val image of each labelled set under `data` (of small sets more, so that five are asked)."""
    found: list[Score] = []
    for folder in sorted(path.parent for path in data.glob("*/dataset.json")):
        items = list(items_of(folder, read_dataset(folder), "val"))
        step = min(every, max(1, len(items) // SMALL_SET))
        found += measure(predictor, folder.name, items[::step])
    return found


def kept(path: Path, make: Any) -> list[Score]:
    """Scores that were made before, or are made now and kept at `path`."""
    if path.is_file():
        return [Score(**row) for row in json.loads(path.read_text("utf-8"))]
    scores: list[Score] = make()
    write_whole(path, json.dumps([asdict(score) for score in scores]))
    return scores


def by_target(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Target -> mean Dice with its 95 % interval over patients (NaN with fewer than five) and the number of cases."""
    groups: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        groups[score.target].append(score)
    found = {}
    for name, group in sorted(groups.items()):
        e = share([s.dice for s in group], [1.0] * len(group), [s.patient for s in group])
        found[name] = {"dice": e.value, "low": e.low, "high": e.high, "n": e.n}
    return found


def gain(before: Sequence[Score], after: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Target, and "all" -> mean change on the same questions with its interval over patients."""
    pairs = list(zip(before, after, strict=True))
    groups = {"all": pairs}
    for pair in pairs:
        groups.setdefault(pair[0].target, []).append(pair)
    found = {}
    for name, group in groups.items():
        changes = [b.dice - a.dice for a, b in group]
        e = share(changes, [1.0] * len(group), [(a.dataset, a.patient) for a, _ in group])
        found[name] = {"change": e.value, "low": e.low, "high": e.high, "n": e.n}
    return found


def forgetting(before: Sequence[Score], after: Sequence[Score]) -> dict[str, Any]:
    """How much old structures lost: means over cases, targets and sets, and the targets with many cases by their loss."""
    change: dict[tuple[str, str], list[float]] = defaultdict(list)
    for a, b in zip(before, after, strict=True):
        change[a.dataset, a.target].append(b.dice - a.dice)
    images = {
        name: len({s.image for s in before if s.dataset == name}) for name in {s.dataset for s in before}
    }

    def mean(scores: Sequence[Score]) -> float:
        rows = [(s.dataset, s.target, s.dice) for s in scores if images[s.dataset] >= SMALL_SET]
        return mean_within_then_over(rows, MIN_CASES)[0]

    many = {key: float(np.mean(values)) for key, values in change.items() if len(values) >= MANY_CASES}
    ordered = sorted(many.items(), key=lambda item: item[1])
    return {
        "before": mean(before),
        "after": mean(after),
        "drop": mean(before) - mean(after),
        "questions": len(before),
        "targets": [
            {"set": name, "target": target, "change": value, "n": len(change[name, target])}
            for (name, target), value in ordered
        ],
    }
