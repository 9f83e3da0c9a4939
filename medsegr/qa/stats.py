"""What MedSeg-QA files hold, in numbers: counts, variety of the implicit questions, and leakage between splits.

Leakage is a patient of one set, or an image of the same pixels, in two splits; several files count as one collection.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from medsegr.errors import ImageError, QAFileError
from medsegr.imaging import Volume, read_image
from medsegr.qa.facts import KnowledgeBase, load_knowledge
from medsegr.qa.reader import numbered_lines, parse_line
from medsegr.qa.schema import Conversation, Slice

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Variety:
    """How differently a target is asked for without its name: distinct wordings, distinct facts, and how many of those facts
    the knowledge base holds out."""

    phrasings: int
    facts: int
    held_out_facts: int


@dataclass(frozen=True)
class Leak:
    """A patient or an image in more than one split. `what` is patient or image; `places` has one `file:line` for each split."""

    what: str
    name: str
    places: Mapping[str, str]

    def sentence(self) -> str:
        """The leak in one line."""
        where = " and ".join(f"{split} ({place})" for split, place in self.places.items())
        return f"{self.what} {self.name} is in {where}"


@dataclass(frozen=True)
class Stats:
    """Counts of a collection. Mappings go from a name to a number; `images` counts distinct files or slices of volumes,
    `patients` distinct patients of distinct sets, `targets` how often a structure is an answer."""

    conversations: int
    images: int
    patients: int
    turns: Mapping[str, int]
    turns_per_conversation: Mapping[int, int]
    splits: Mapping[str, int]
    modalities: Mapping[str, int]
    datasets: Mapping[str, int]
    licences: Mapping[str, int]
    reviews: Mapping[str, int]
    targets: Mapping[str, int]
    variety: Mapping[str, Variety]
    leaks: Sequence[Leak]

    @property
    def held_out_share(self) -> float:
        """Share of the facts asked about that are held out, in [0, 1]; 0 where no question has a fact."""
        facts = sum(v.facts for v in self.variety.values())
        return sum(v.held_out_facts for v in self.variety.values()) / facts if facts else 0.0

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        plain = {
            key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(self).items()
        }
        plain["variety"] = {name: vars(v) for name, v in self.variety.items()}
        plain["leaks"] = [{**vars(leak), "places": dict(leak.places)} for leak in self.leaks]
        return {**plain, "held_out_share": self.held_out_share}


@dataclass
class _Seen:
    patients: dict[tuple[str, str], dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    images: dict[Path, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    shown: set[tuple[Path, Slice | None]] = field(default_factory=set)
    wordings: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    facts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def collect(files: Sequence[Path], knowledge: KnowledgeBase | None = None, hash_images: bool = True) -> Stats:
    """Read MedSeg-QA files as one collection. With `hash_images`, every image is decoded once to find copies.

    Raises `QAFileError` with file and line for a broken line, or an image that cannot be decoded.
    """
    knowledge = knowledge or load_knowledge()
    seen = _Seen()
    conversations = [
        _remember(seen, path, number, line) for path in files for number, line in numbered_lines(path)
    ]
    turns = [turn for c in conversations for turn in c.turns]
    patients = (
        Leak("patient", f"'{name}' of {dataset}", places) for (dataset, name), places in seen.patients.items()
    )
    leaks = [*patients, *(_image_leaks(seen.images) if hash_images else _path_leaks(seen.images))]
    return Stats(
        conversations=len(conversations),
        images=len(seen.shown),
        patients=len(seen.patients),
        turns=_sorted(turn.kind for turn in turns),
        turns_per_conversation=dict(sorted(Counter(len(c.turns) for c in conversations).items())),
        splits=_sorted(c.split for c in conversations),
        modalities=_sorted(c.modality for c in conversations),
        datasets=_sorted(c.dataset for c in conversations),
        licences=_sorted(f"{c.licence or 'not stated'} ({c.licence_class})" for c in conversations),
        reviews=_sorted(c.review.status for c in conversations),
        targets=_sorted(target.label for turn in turns for target in turn.targets),
        variety={
            name: Variety(len(words), len(seen.facts[name]), len(seen.facts[name] & knowledge.held_out_ids))
            for name, words in sorted(seen.wordings.items())
        },
        leaks=[leak for leak in leaks if len(leak.places) > 1],
    )


def _remember(seen: _Seen, path: Path, number: int, line: str) -> Conversation:
    """Note one line for the figures of the whole collection."""
    where = f"{path}:{number}"
    conversation = parse_line(line, where)
    image = (path.parent / conversation.image).resolve()
    seen.shown.add((image, conversation.slice))
    seen.patients[conversation.dataset, conversation.patient_id].setdefault(conversation.split, where)
    seen.images[image].setdefault(conversation.split, where)
    for turn in conversation.turns:
        if turn.kind == "implicit" and len(turn.targets) == 1:
            label = turn.targets[0].label
            seen.wordings[label].add(" ".join(turn.question.lower().split()))
            if turn.fact is not None:
                seen.facts[label].add(turn.fact)
    return conversation


def _path_leaks(images: Mapping[Path, Mapping[str, str]]) -> Iterable[Leak]:
    return (Leak("image", f"'{path.name}'", places) for path, places in images.items())


def _image_leaks(images: Mapping[Path, Mapping[str, str]]) -> Iterable[Leak]:
    """Images of the same pixels, whatever their names are."""
    same: dict[str, dict[str, str]] = defaultdict(dict)
    names: dict[str, str] = {}
    for path, places in images.items():
        digest = pixel_hash(path, next(iter(places.values())))
        names.setdefault(digest, path.name)
        for split, place in places.items():
            same[digest].setdefault(split, place)
    return (Leak("image", f"'{names[digest]}'", places) for digest, places in same.items())


def pixel_hash(path: Path, where: str) -> str:
    """SHA-256 of an image's shape and pixels, whatever its file format; grey stored as RGB equals grey.

    Raises `QAFileError` that begins with `where` if the image is missing or damaged.
    """
    try:
        if path.suffix.lower() in PICTURES:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB") if image.mode in {"P", "RGBA", "CMYK"} else image)
        else:
            read = read_image(path)
            pixels = read.voxels if isinstance(read, Volume) else read.pixels
    except (OSError, UnidentifiedImageError, ImageError, SyntaxError) as error:
        raise QAFileError(f"{where}: image '{path.name}' cannot be read: {error}") from error
    if pixels.shape[-1] == 3 and pixels.ndim > 2 and not np.ptp(pixels, axis=-1).any():
        pixels = pixels[..., 0]
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype}".encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def _sorted(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, the most frequent first."""
    counts = Counter(names)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
