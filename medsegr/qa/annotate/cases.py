"""Which image and target are annotated next, and what is known about each: the drawn order depends on seed and data only."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from medsegr.errors import MedSegRError
from medsegr.qa.annotate.mask_facts import Frame, MaskFacts, centre, frame_of, mask_facts
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.folders import LabelledSet
from medsegr.qa.scenes import Scene


@dataclass(frozen=True)
class Draw:
    """One target of one image, by its place in the drawn order. `frame`: whose side words are meant."""

    index: int
    scene: Scene
    name: str
    frame: Frame

    @property
    def id(self) -> str:
        """First part of the ids of its conversations."""
        return f"{self.scene.source.name}_{self.scene.image.stem}_a{self.index:06d}"


@dataclass(frozen=True)
class Case:
    """A draw with its facts. `centres`: (x, y) in [0, 1] of every present target, by each of its names in lower case."""

    draw: Draw
    facts: MaskFacts
    centres: Mapping[str, tuple[float, float]]

    @property
    def scene(self) -> Scene:
        """The image with its truth."""
        return self.draw.scene

    @property
    def training(self) -> bool:
        """Whether held-out facts are forbidden."""
        return self.scene.image.split == "train"


def draw_all(scenes: Sequence[Scene], seed: int) -> list[Draw]:
    """Every present target of every scene once, shuffled by the seed; sets take turns, and targets within a set, so that
    the first draws are as varied as the data allow."""
    rng = random.Random(f"{seed}:annotate")
    queues: dict[str, dict[str, list[Scene]]] = {}
    for scene in scenes:
        for name in scene.present:
            queues.setdefault(scene.source.name, {}).setdefault(name, []).append(scene)
    for targets in queues.values():
        for queue in targets.values():
            rng.shuffle(queue)
    frames = {scene.source.name: scene.source for scene in scenes}
    known = {name: set_frame(source) for name, source in frames.items()}
    in_turn = _interleaved([_interleaved([_pairs(n, q) for n, q in t.items()]) for t in queues.values()])
    return [Draw(index, scene, name, known[scene.source.name]) for index, (scene, name) in enumerate(in_turn)]


def _pairs(name: str, scenes: Iterable[Scene]) -> list[tuple[Scene, str]]:
    return [(scene, name) for scene in scenes]


def _interleaved(lists: Sequence[list[tuple[Scene, str]]]) -> list[tuple[Scene, str]]:
    longest = max((len(items) for items in lists), default=0)
    return [items[n] for n in range(longest) for items in lists if n < len(items)]


def set_frame(source: LabelledSet) -> Frame:
    """Whose sides the images of a set show: `sides` of its dataset.json ("patient" or "image"), else the image's where the
    description says sagittal, else the habit of modality and region."""
    path = source.folder / "dataset.json"
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MedSegRError(f"{path} is not a labelled set's description: {error}.") from error
    sides = row.get("sides")
    if sides is not None:
        if sides not in {"patient", "image"}:
            raise MedSegRError(f"{path}: 'sides' is {sides!r}; expected 'patient' or 'image'.")
        return Frame(sides)
    if "sagittal" in f"{row.get('anatomy', '')} {row.get('notes', '')}".lower():
        return Frame.IMAGE
    return frame_of(source.modality, source.region)


def read_case(draw: Draw, knowledge: KnowledgeBase) -> Case:
    """The facts of a draw from its label map; raises `MedSegRError` if it cannot be read or lacks the target."""
    path = draw.scene.image.mask
    try:
        with Image.open(path) as image:
            labels = np.asarray(image)
    except (OSError, UnidentifiedImageError) as error:
        raise MedSegRError(f"{path} cannot be read as a label image: {error}.") from error
    targets = draw.scene.source.targets
    facts = mask_facts(labels, draw.name, targets, draw.scene.present, draw.frame)
    centres = {
        word.lower(): centre(np.isin(labels, targets[name]))
        for name in draw.scene.present
        for word in knowledge[name].give_away
    }
    centres |= {name.lower(): centre(np.isin(labels, targets[name])) for name in draw.scene.present}
    return Case(draw, facts, centres)


def name_contradicts_mask(case: Case) -> str | None:
    """Why the label map cannot be trusted: a target named left lies on the right of the patient, or the other way round."""
    words = set(case.facts.name.lower().split()) & {"left", "right"}
    if case.facts.frame is Frame.IMAGE or len(words) != 1 or case.facts.side not in {"left", "right"}:
        return None
    if words == {case.facts.side}:
        return None
    return f"'{case.facts.name}' lies on the patient's {case.facts.side} in radiological convention"


def order_digest(draws: Sequence[Draw]) -> str:
    """SHA-256 of the drawn order: equal only for the same data and seed."""
    text = "\n".join(f"{draw.id} {draw.name}" for draw in draws)
    return hashlib.sha256(text.encode()).hexdigest()
