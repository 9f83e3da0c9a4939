"""What `medsegr ask` does between asking and printing: measure the findings and write them on the input's grid."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsegr.errors import ImageError
from medsegr.imaging import Picture, Volume, measure, overlay, to_rgb, volume_intensity_range, write_label_map
from medsegr.predictor import Predictor, Reply


@dataclass(frozen=True, eq=False)
class Answered:
    """A question, its reply, and the measurements of each finding in the reply's order."""

    question: str
    reply: Reply
    sizes: tuple[dict[str, Any], ...]


def ask_all(
    predictor: Predictor, image: Picture | Volume, questions: Sequence[str], slices: range | None = None
) -> list[Answered]:
    """Ask `questions` in turn, each with the earlier ones as history; raises `MedSegRError`."""
    if isinstance(image, Picture):
        if slices is not None:
            raise ImageError("A choice of slices needs a volume; this image has one slice only.")
        predictor.set_image(image)
    history: list[tuple[str, str]] = []
    turns: list[Answered] = []
    for question in questions:
        if isinstance(image, Picture):
            reply = predictor.ask(question, history)
        else:
            reply = predictor.ask_volume(image, question, history, slices=slices)
        turns.append(Answered(question, reply, tuple(measure(found.mask, image) for found in reply.findings)))
        history.append((question, reply.text))
    return turns


def size_in_words(size: dict[str, Any]) -> str:
    """A measurement as people write it, such as "12.5 cm²" or "31 ml, slices 4 to 17"."""
    if "volume_ml" in size:
        first, last = size["slices"] or (None, None)
        where = (
            "" if first is None else f", slices {first} to {last}" if first != last else f", slice {first}"
        )
        return f"{_rounded(size['volume_ml'])} ml{where}"
    if "area_mm2" in size:
        area = float(size["area_mm2"])
        return f"{_rounded(area / 100)} cm²" if area >= 100 else f"{_rounded(area)} mm²"
    return f"{size['area_px']} pixels (the image has no spacing)"


def _rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def write_answer(
    folder: Path, turn: Answered, image: Picture | Volume, source: Path, predictor: Predictor
) -> None:
    """Write `answer.json`, a mask file per finding and `overlay.png` into `folder`.

    A picture's masks are PNG (0 or 255); a volume's are NIfTI (0 or 1) on the volume's own grid.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"The folder {folder} cannot be made ({error.strerror}); expected a place to write to."
        ) from error
    suffix, inside = (".png", 255) if isinstance(image, Picture) else (".nii.gz", 1)
    findings = []
    for n, (found, size) in enumerate(zip(turn.reply.findings, turn.sizes, strict=True), start=1):
        name = f"mask-{n}-{_slug(found.label)}{suffix}"
        write_label_map(folder / name, found.mask.astype(np.uint8) * np.uint8(inside), image, source)
        findings.append({
            "n": n, "label": found.label, "phrase": found.phrase, "confidence": round(found.confidence, 4),
            "mask": name, "value": inside, **size,
        })  # fmt: skip
    rgb, masks, shown = view(image, turn.reply)
    Image.fromarray(overlay(rgb, masks)).save(folder / "overlay.png")
    answer = {
        "image": source.name, "question": turn.question, "answer": turn.reply.text, "findings": findings,
        "overlay_slice": shown, "model_version": predictor.version, "weights_licence": predictor.licence,
        "latencies_ms": {name: round(value, 1) for name, value in turn.reply.latencies_ms.items()},
    }  # fmt: skip
    (folder / "answer.json").write_text(
        json.dumps(answer, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def view(
    image: Picture | Volume, reply: Reply
) -> tuple[NDArray[np.uint8], list[tuple[str, NDArray[np.bool_]]], int | None]:
    """RGB [H, W, 3], masks as drawn on it, and for a volume the slice shown: the one with most of the findings."""
    if isinstance(image, Picture):
        rgb = to_rgb(image.pixels, image.modality, image.body_part)
        return rgb, [(found.label, found.mask) for found in reply.findings], None
    axes = tuple(axis for axis in range(3) if axis != image.slice_axis)
    counts = sum(
        (found.mask.sum(axis=axes) for found in reply.findings), np.zeros(image.n_slices, dtype=np.int64)
    )
    shown = int(np.argmax(counts)) if counts.any() else image.n_slices // 2
    pixels = image.slice_pixels(shown)
    rgb = to_rgb(pixels, image.modality, image.body_part, volume_intensity_range(image))
    return rgb, [(found.label, image.slice_from_volume(shown, found.mask)) for found in reply.findings], shown


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "finding"
