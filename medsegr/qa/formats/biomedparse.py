"""BiomedParse folders: everything is said by file names.

    SET/train/NAME_MODALITY_SITE.png          images, in train/ and test/ (val/ is read and written as well)
    SET/train_mask/NAME_MODALITY_SITE_TARGET.png   masks: not 0 is the target; spaces of the target's name are written '+'

as in "File Name Convention" of the repository microsoft/BiomedParse. The question is the prompt that its annotation script
makes, "TARGET in SITE MODALITY". The format has no other questions, no answers and no empty targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from medsegr.errors import QAFileError
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.formats.drafts import Shelf
from medsegr.qa.formats.labels import picture_size, read_binary, save_binary
from medsegr.qa.formats.records import (
    Item,
    ReadOptions,
    Report,
    WriteOptions,
    by_image,
    image_targets,
    modality,
    outlined,
    pictures,
    shipped_knowledge,
)
from medsegr.qa.schema import SPLITS, Conversation, Target, Turn

MODALITY_WORDS = {
    "CT": "CT", "MR": "MRI", "XR": "X-Ray", "US": "ultrasound", "FUNDUS": "fundus", "DERM": "dermoscopy",
    "PHOTO": "photograph", "MICRO": "pathology",
}  # fmt: skip


def name_parts(stem: str) -> tuple[str, str, str] | None:
    """(name, modality, site) of an image's stem, None where it has fewer than two underscores."""
    parts = stem.rsplit("_", 2)
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 and all(parts) else None


def prompt(target: str, site: str, said: str) -> str:
    """The prompt of a target, as BiomedParse's annotation script makes it."""
    return f"{target} in {site} {said}"


def read(source: Path, shelf: Shelf, options: ReadOptions) -> Iterator[Conversation]:
    """A conversation for each mask of the set in `source`; raises `QAFileError` naming the file."""
    folders = [(split, source / f"{split}_mask") for split in SPLITS if (source / f"{split}_mask").is_dir()]
    if not folders:
        raise QAFileError(f"{source} has no train_mask or test_mask; a BiomedParse set is expected.")
    dataset = options.dataset or source.name
    for split, folder in folders:
        names: dict[str, str] = {}
        for mask in sorted(folder.glob("*.png")):
            stem, _, word = mask.stem.rpartition("_")
            parts = name_parts(stem)
            image = source / split / f"{stem}.png"
            if parts is None or not word.replace("+", " ").strip():
                raise QAFileError(
                    f"{mask}: the name does not say NAME_MODALITY_SITE_TARGET; four parts are expected."
                )
            if not image.is_file():
                raise QAFileError(f"{mask}: there is no image {split}/{stem}.png for it.")
            label = word.replace("+", " ").strip()
            pixels = read_binary(mask, picture_size(image, str(mask)), str(mask))
            if not pixels.any():
                raise QAFileError(f"{mask}: the mask is empty; a target of at least one pixel is expected.")
            name = names.setdefault(stem, shelf.name(stem))
            own = shelf.name(mask.stem)
            ((file, values),) = shelf.masks([(label, pixels)], own)
            copy = shelf.image(image, name)
            question = prompt(label, parts[2], parts[1])
            yield Conversation(
                id=f"{dataset}_{own}",
                image=copy,
                modality=modality(options, parts[1], str(mask)),
                dataset=dataset,
                patient_id=options.patient(parts[0], copy),
                split=options.split or split,
                turns=(Turn(question, outlined([label]), (Target(label, label, file, values),), "explicit"),),
                licence=options.licence,
                licence_class=options.licence_class,
            )


def write(items: Sequence[Item], out: Path, options: WriteOptions) -> Report:
    """`out/SPLIT/` and `out/SPLIT_mask/`: every target of an image once; raises `QAFileError` for a name with '_' or '/'.

    Modality and site are taken from a question of BiomedParse's form, else from the modality and the body region that the
    knowledge base gives the target.
    """
    report = Report()
    knowledge = shipped_knowledge()
    names = Shelf(out, "")
    for image, members in by_image(pictures(items, report)).items():
        targets = image_targets(members, report)
        _count_wordings(members, report)
        if not targets:
            continue
        item = members[0]
        said, site = _said(members, knowledge)
        stem = image.stem.removesuffix(f"_{said}_{site}")
        stem = f"{names.name(stem)}_{said}_{site}"
        split = item.conversation.split
        (out / split).mkdir(parents=True, exist_ok=True)
        with Image.open(image) as picture:
            picture.save(out / split / f"{stem}.png", format="PNG")
        for label, target in targets.items():
            if {"_", "/", "\\", "+"} & set(label):
                raise QAFileError(
                    f"{item.where}: the target '{label}' cannot be a file name here; no _ / \\ + is expected."
                )
            word = "+".join(label.split())
            save_binary(item.target_mask(target), out / f"{split}_mask" / f"{stem}_{word}.png")
            report.count += 1
    return report


def _said(items: Sequence[Item], knowledge: KnowledgeBase) -> tuple[str, str]:
    """(modality, site) in BiomedParse's words."""
    code = items[0].conversation.modality
    labels = []
    for item in items:
        for turn in item.conversation.turns:
            for target in turn.targets:
                labels.append(target.label)
                head = f"{target.label} in "
                if turn.question.startswith(head) and " " in (rest := turn.question[len(head) :]):
                    site, _, said = rest.rpartition(" ")
                    if "_" not in rest:
                        return said, site
    regions = [c.region for label in labels for c in knowledge.find(label)]
    return MODALITY_WORDS[code], regions[0] if regions else "body"


def _count_wordings(items: Sequence[Item], report: Report) -> None:
    """Questions other than the prompt, and answers other than ours, are not carried."""
    turns = [turn for item in items for turn in item.conversation.turns if turn.targets]
    other = [
        t for t in turns if not any(t.question.startswith(f"{target.label} in ") for target in t.targets)
    ]
    if other:
        report.dropped["questions in other words"] += len(other)
    answers = [t for t in turns if t.answer != outlined([target.phrase for target in t.targets])]
    if answers:
        report.dropped["answers"] += len(answers)
