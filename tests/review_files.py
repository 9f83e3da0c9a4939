"""A MedSeg-QA file about slices of the torso phantom, for the tests of the physician review."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medsegr.imaging import to_rgb
from medsegr.phantom import LABELS, Torso, make_torso, write_nifti
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Conversation

SHAPE, SPACING_MM = (160, 160, 20), (2.2, 2.2, 15.0)


@cache
def torso() -> Torso:
    """The phantom, made once."""
    return make_torso(3, SHAPE, SPACING_MM)


def turn(
    question: str, answer: str, *labels: str, kind: str = "explicit", mask: str = "masks/a.png"
) -> dict[str, Any]:
    """One turn; the phrases are the labels."""
    targets = [{"label": label, "phrase": label, "mask": mask, "value": LABELS[label]} for label in labels]
    return {"question": question, "answer": answer, "targets": targets, "kind": kind}


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "liver": [
        turn("Which organ here makes bile?", "The <p>liver</p> [SEG] makes bile.", "liver", kind="implicit"),
        turn(
            "Where are the kidneys?",
            "The <p>right kidney</p> [SEG] and the <p>left kidney</p> [SEG] lie beside the spine.",
            *("right kidney", "left kidney"),
            kind="multi",
        ),
    ],
    "spleen": [turn("Outline the spleen.", "The <p>spleen</p> [SEG] lies on the patient's left.", "spleen")],
    "aorta": [turn("Show the aorta.", "The <p>aorta</p> [SEG] lies before the spine.", "aorta")],
    "hippocampus": [
        {
            **turn(
                "Where is the hippocampus?",
                "No hippocampus is visible in this slice.",
                kind="absent_elsewhere",
            ),
            "absent": ["hippocampus"],
        }
    ],
}
"""Id -> turns."""


def write_review_file(folder: Path) -> Path:
    """`qa.jsonl` with four conversations about one slice, and its image and mask; everything passes `qa check`."""
    phantom = torso()
    named = ("liver", "right kidney", "left kidney", "spleen", "aorta")
    k = int(
        np.min([phantom.mask(label).sum((0, 1)) for label in named], axis=0).argmax()
    )  # shows all of them
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    pixels = to_rgb(phantom.volume.slice_pixels(k), "CT", "ABDOMEN")
    Image.fromarray(pixels).resize((512, 512), Image.Resampling.BICUBIC).save(folder / "images" / "a.png")
    labels = Image.fromarray(np.ascontiguousarray(phantom.volume.slice_from_volume(k, phantom.labels)))
    labels.resize((512, 512), Image.Resampling.NEAREST).save(folder / "masks" / "a.png")
    records = [
        {**_record(id_), "image": "images/a.png", "turns": turns, "spacing_mm": [0.7, 0.7]}
        for id_, turns in CONVERSATIONS.items()
    ]
    path = folder / "qa.jsonl"
    write_qa(path, [Conversation.from_json(record) for record in records])
    return path


def write_volume_file(folder: Path) -> Path:
    """`qa.jsonl` with two conversations about the phantom as NIfTI: the whole volume, and its sagittal slice 80."""
    folder.mkdir(parents=True)
    write_nifti(torso(), folder / "image.nii.gz", folder / "labels.nii.gz")
    turns = [turn("Outline the liver.", "The <p>liver</p> [SEG].", "liver", mask="labels.nii.gz")]
    records = [
        {**_record("whole"), "image": "image.nii.gz", "turns": turns},
        {**_record("sagittal"), "image": "image.nii.gz", "turns": turns, "slice": {"axis": 0, "index": 40}},
    ]
    path = folder / "qa.jsonl"
    write_qa(path, [Conversation.from_json(record) for record in records])
    return path


def _record(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "modality": "CT",
        "dataset": "phantom",
        "patient_id": "PHANTOM-3",
        "split": "val",
        "licence": "CC0",
    }
