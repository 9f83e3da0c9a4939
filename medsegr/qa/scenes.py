"""What can be asked about each labelled image: which targets it shows, which it certainly lacks, and how its
study is called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsegr.qa.abilities import Place
from medsegr.qa.absence import impossible_targets
from medsegr.qa.facts import Concept, KnowledgeBase
from medsegr.qa.folders import LabelledImage, LabelledSet, read_labels, value_counts
from medsegr.qa.phrasing import study_name
from medsegr.qa.schema import Conversation, Target, Turn

MIN_PIXELS = 12
MANY_LEAVES = 15


@dataclass(frozen=True)
class Scene:
    """One image with its truth. `everything`: the targets that answer "What can you see here?"; `missing`:
    absent although the set draws them; `impossible`: absent because they belong to another region. Paths are
    relative to the QA file's folder."""

    source: LabelledSet
    image: LabelledImage
    image_path: str
    mask_path: str
    study: str
    present: tuple[str, ...]
    everything: tuple[str, ...]
    missing: tuple[str, ...]
    impossible: tuple[str, ...]

    @property
    def askable(self) -> bool:
        """Whether any question has a known answer: an empty label map of an unexhaustive set tells nothing."""
        return bool(self.present or self.missing or self.impossible)

    def apart(self, one: str, other: str) -> bool:
        """Whether two targets of the set share no mask value; what the set does not draw is apart from everything."""
        values = self.source.targets
        return set(values.get(one, ())).isdisjoint(values.get(other, ()))

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where the present structures that contain no other lie; read from the label image at the first use."""
        sums = _value_sums(self.image.mask)
        found = {}
        for name in self.source.leaves(self.present):
            pixels, rows, columns = sums[:, list(self.source.targets[name])].sum(axis=1).tolist()
            found[name] = Place(rows / pixels, columns / pixels, pixels / sums[0].sum())
        return found

    def target(self, name: str) -> Target:
        """The mask of a present target."""
        return Target(label=name, phrase=name, mask=self.mask_path, value=self.source.targets[name])

    def conversation(self, identifier: str, turns: Sequence[Turn]) -> Conversation:
        """A conversation about this image."""
        source, image = self.source, self.image
        return Conversation(
            id=identifier,
            image=self.image_path,
            modality=source.modality,
            dataset=source.name,
            patient_id=image.patient_id,
            split=image.split,
            turns=tuple(turns),
            licence=source.licence,
            licence_class=source.licence_class,
        )


def read_scenes(sets: Sequence[LabelledSet], splits: Iterable[str], root: Path) -> list[Scene]:
    """Scenes of every image of the splits, sets and images in order; each mask is decoded once. `root`: the
    QA file's folder."""
    wanted = set(splits)
    scenes = []
    for source in sets:
        study, impossible = study_name(source.region, source.modality), impossible_targets(source, sets)
        for image in source.images:
            if image.split not in wanted:
                continue
            counts = value_counts(image.mask)
            present = source.present(counts, MIN_PIXELS)
            scenes.append(
                Scene(
                    source,
                    image,
                    _relative(image.image, root),
                    _relative(image.mask, root),
                    study,
                    present,
                    everything(source, present),
                    source.missing(counts),
                    impossible,
                )
            )
    return scenes


def everything(source: LabelledSet, present: tuple[str, ...]) -> tuple[str, ...]:
    """Present targets to list when everything is asked for: the smallest ones, or the largest groups where
    the set has very many."""
    if len(source.leaves(tuple(source.targets))) <= MANY_LEAVES:
        return source.leaves(present)
    return tuple(name for name in largest_groups(source) if name in present)


def largest_groups(source: LabelledSet) -> tuple[str, ...]:
    """Disjoint groups of targets, largest first, short of the one that covers all; in the set's order."""
    leaves = set(source.leaves(tuple(source.targets)))
    union = {v for values in source.targets.values() for v in values}
    groups = sorted(
        (n for n in source.targets if n not in leaves and set(source.targets[n]) != union),
        key=lambda n: -len(source.targets[n]),
    )
    chosen: set[str] = set()
    covered: set[int] = set()
    for name in groups:
        if covered.isdisjoint(source.targets[name]):
            chosen.add(name)
            covered |= set(source.targets[name])
    return tuple(name for name in source.targets if name in chosen)


def require_knowledge(sets: Sequence[LabelledSet], knowledge: KnowledgeBase) -> None:
    """Raise `MedSegRError` naming every target, declared absence or part that the knowledge base does not
    describe."""
    names = {name for source in sets for name in (*source.targets, *source.absent)}
    knowledge.require(names)


def parts(concept: Concept, scene: Scene) -> dict[str, str]:
    """Sides of a pair that can be asked for in this image: side to target name."""
    known = {*scene.present, *scene.missing}
    return {side: name for side, name in concept.parts.items() if side in {"left", "right"} and name in known}


@lru_cache(maxsize=512)
def _value_sums(mask: Path) -> NDArray[np.float64]:
    """[3, 256]: pixels of each value of a label image, and the sums of their rows and columns, both in [0, 1]."""
    labels = read_labels(mask)
    height, width = labels.shape
    rows = np.broadcast_to((np.arange(height) / height)[:, None], labels.shape)
    columns = np.broadcast_to(np.arange(width) / width, labels.shape)
    weights = (None, rows.ravel(), columns.ravel())
    return np.stack([np.bincount(labels.ravel(), w, minlength=256).astype(np.float64) for w in weights])


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()
