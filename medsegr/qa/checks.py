"""Checks of a whole MedSeg-QA file: what a training would trip over, and what would make an evaluation lie.

Every problem is one line, `file:line: what is wrong`; an empty list means that the file is sound.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image, UnidentifiedImageError

from medsegr.errors import MedSegRError, QAFileError
from medsegr.qa.absence import regions_exclude
from medsegr.qa.facts import KnowledgeBase, load_knowledge
from medsegr.qa.folders import value_counts
from medsegr.qa.reader import numbered_lines, parse_line
from medsegr.qa.schema import Conversation, Target, Turn

SEG = "[SEG]"
ABSENT_KINDS = ("absent_same_set", "absent_elsewhere")
_MARKED = re.compile(r"<p>(.*?)</p> \[SEG\]")


@dataclass
class _Seen:
    """What the file as a whole says: needed for the rules that no single line can break."""

    conversations: list[tuple[str, Conversation]] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    split_of_patient: dict[tuple[str, str], str] = field(default_factory=dict)
    split_of_image: dict[str, str] = field(default_factory=dict)
    values: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    masks: dict[tuple[str, object], set[str]] = field(default_factory=lambda: defaultdict(set))


def check_file(path: Path, extra_knowledge: Path | None = None) -> list[str]:
    """Every problem of a MedSeg-QA file: schema, files, mask values, marked phrases, leaks, splits, the
    absent rule."""
    knowledge = load_knowledge(extra_knowledge)
    seen, problems = _Seen(), []
    try:
        for number, line in numbered_lines(path):
            where = f"{path.name}:{number}"
            try:
                problems += [f"{where}: {p}" for p in _remember(seen, where, parse_line(line, where))]
            except QAFileError as error:
                problems.append(str(error))
    except QAFileError as error:
        return [*problems, str(error)]
    if not seen.conversations and not problems:
        return [f"{path.name} holds no conversation; expected at least one."]
    regions = _regions(seen, knowledge)
    for where, conversation in seen.conversations:
        for problem in check_conversation(conversation, path.parent, knowledge):
            problems.append(f"{where}: {problem}")
        for problem in _check_absences(
            conversation, path.parent, knowledge, seen, regions.get(conversation.dataset)
        ):
            problems.append(f"{where}: {problem}")
    return problems


def check_conversation(conversation: Conversation, root: Path, knowledge: KnowledgeBase) -> Iterator[str]:
    """Problems of one conversation by itself. `root`: the folder that its paths are relative to."""
    if not (root / conversation.image).exists():
        yield f"image '{conversation.image}' does not exist"
    for number, turn in enumerate(conversation.turns, start=1):
        found = [*_check_markup(turn), *_check_wording(turn, conversation.split, knowledge)]
        for target in turn.targets:
            found += _check_target(target, conversation, root)
        yield from (f"turn {number}: {problem}" for problem in found)


def _check_markup(turn: Turn) -> Iterator[str]:
    marked, expected = _MARKED.findall(turn.answer), [target.phrase for target in turn.targets]
    if turn.answer.count(SEG) != len(expected):
        yield f"the answer has {turn.answer.count(SEG)} {SEG} for {len(expected)} targets"
    elif marked != expected:
        yield (
            f"the answer marks {marked}; expected the targets' phrases {expected} in this order, each as "
            f"'<p>phrase</p> {SEG}'"
        )


def _check_wording(turn: Turn, split: str, knowledge: KnowledgeBase) -> Iterator[str]:
    if turn.kind == "implicit" or (turn.kind in ABSENT_KINDS and turn.fact is not None):
        for name in (*(target.label for target in turn.targets), *turn.absent):
            word = (
                knowledge[name].leak(turn.question)
                if name in knowledge
                else name
                if name in turn.question
                else None
            )
            if word:
                yield f"the implicit question gives '{name}' away with '{word}'"
    if turn.fact is not None and split == "train" and turn.fact in knowledge.held_out_ids:
        yield f"fact '{turn.fact}' is held out, but the split is train"
    if turn.kind in ABSENT_KINDS and turn.targets:
        yield f"kind is {turn.kind}, but there are {len(turn.targets)} targets"
    if turn.kind not in ABSENT_KINDS and turn.kind != "all" and not turn.targets:
        yield f"kind is {turn.kind}, but there is no target; expected an absent kind"
    if both := {target.label for target in turn.targets} & set(turn.absent):
        yield f"'{min(both)}' is a target and absent at once"


def _check_target(target: Target, conversation: Conversation, root: Path) -> Iterator[str]:
    path = root / target.mask
    if not path.exists():
        yield f"mask '{target.mask}' does not exist"
        return
    try:
        values, size = _mask(path)
        if not values & set(target.value):
            yield (
                f"mask '{target.mask}' has none of the values {list(target.value)} of '{target.label}'; "
                f"it has {sorted(values)}"
            )
        if size is not None and (shown := _picture_size(root / conversation.image)) not in {size, None}:
            yield f"mask '{target.mask}' is {size} pixels, but the image is {shown}"
    except MedSegRError as error:
        yield str(error)


@lru_cache(maxsize=65536)
def _mask(path: Path) -> tuple[frozenset[int], tuple[int, int] | None]:
    """Values of a label map, and its (width, height) if it is a picture."""
    if path.name.endswith((".nii", ".nii.gz")):
        try:
            return frozenset(int(v) for v in np.unique(np.asarray(nib.load(path).dataobj))), None  # type: ignore[attr-defined]
        except (OSError, ValueError, nib.filebasedimages.ImageFileError) as error:
            raise QAFileError(f"mask '{path.name}' cannot be read: {error}") from error
    return frozenset(np.flatnonzero(value_counts(path)).tolist()), _picture_size(path)


@lru_cache(maxsize=65536)
def _picture_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of a PNG or JPEG; None for anything else."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError):
        return None


def _remember(seen: _Seen, where: str, conversation: Conversation) -> Iterator[str]:
    """Note a conversation for the rules of the whole file; yields what contradicts the lines before."""
    seen.conversations.append((where, conversation))
    earlier = seen.ids.setdefault(conversation.id, where)
    if earlier != where:
        yield f"id '{conversation.id}' was used in {earlier}"
    split = seen.split_of_patient.setdefault(
        (conversation.dataset, conversation.patient_id), conversation.split
    )
    if split != conversation.split:
        yield (
            f"patient '{conversation.patient_id}' of {conversation.dataset} is in the splits {split} and "
            f"{conversation.split}"
        )
    elif (
        shown := seen.split_of_image.setdefault(conversation.image, conversation.split)
    ) != conversation.split:
        yield f"image '{conversation.image}' is in the splits {shown} and {conversation.split}"
    for target in (t for turn in conversation.turns for t in turn.targets):
        values = seen.values.setdefault((conversation.dataset, target.label), target.value)
        if set(values) != set(target.value):
            yield (
                f"'{target.label}' has the values {list(target.value)}, but {list(values)} elsewhere in "
                f"{conversation.dataset}"
            )
        seen.masks[conversation.image, conversation.slice].add(target.mask)


def _regions(seen: _Seen, knowledge: KnowledgeBase) -> dict[str, str]:
    """The region of each set: the one that most of its targets belong to."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for dataset, label in seen.values:
        if label in knowledge:
            votes[dataset][knowledge[label].region] += 1
    return {dataset: count.most_common(1)[0][0] for dataset, count in votes.items()}


def _check_absences(
    conversation: Conversation, root: Path, knowledge: KnowledgeBase, seen: _Seen, region: str | None
) -> Iterator[str]:
    for number, turn in enumerate(conversation.turns, start=1):
        for name in turn.absent:
            values = seen.values.get((conversation.dataset, name))
            if turn.kind == "absent_elsewhere":
                if values is not None:
                    yield (
                        f"turn {number}: '{name}' is a target of {conversation.dataset}; expected the "
                        "kind absent_same_set"
                    )
                elif region and name in knowledge and not regions_exclude(region, knowledge[name].region):
                    yield (
                        f"turn {number}: '{name}' ({knowledge[name].region}) may be visible in an image "
                        f"of the {region}; "
                        "unlabelled is not absent"
                    )
            elif values is not None:
                for mask in sorted(seen.masks[conversation.image, conversation.slice]):
                    if (root / mask).exists() and _shows(root / mask, values):
                        yield f"turn {number}: '{name}' is called absent, but '{mask}' shows it"


def _shows(mask: Path, values: tuple[int, ...]) -> bool:
    try:
        return bool(_mask(mask)[0] & set(values))
    except MedSegRError:
        return False
