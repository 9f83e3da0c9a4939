"""One picture of the whole demo: each image with what was outlined, the question and the answer."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from questions import Answer

from medsegr.commands.replies import view
from medsegr.imaging import Picture, Volume, overlay
from medsegr.predictor import Finding, Reply

COLUMNS, SIDE, TEXT, GAP = 3, 480, 190, 24
PAPER, INK, QUIET = (250, 250, 248), (25, 25, 25), (110, 110, 110)


def contact_sheet(
    answers: Sequence[Answer], images: Sequence[Picture | Volume], notes: Sequence[str]
) -> Image.Image:
    """A grid of tiles; `notes` are a short line under each."""
    rows = -(-len(answers) // COLUMNS)
    size = (GAP + COLUMNS * (SIDE + GAP), GAP + rows * (SIDE + TEXT + GAP))
    sheet = Image.new("RGB", size, PAPER)
    for n, (answer, image, note) in enumerate(zip(answers, images, notes, strict=True)):
        at = (GAP + n % COLUMNS * (SIDE + GAP), GAP + n // COLUMNS * (SIDE + TEXT + GAP))
        sheet.paste(_picture(answer, image), at)
        _write(ImageDraw.Draw(sheet), (at[0], at[1] + SIDE + 8), answer, note)
    return sheet


def _picture(answer: Answer, image: Picture | Volume) -> Image.Image:
    """The image, centred in a square of `SIDE` pixels, with every finding outlined; for a volume, one slice."""
    found = answer.params["findings"]
    findings = tuple(
        Finding(f["label"], f["phrase"], mask, float(f["confidence"]))
        for f, mask in zip(found, answer.masks, strict=True)
    )
    rgb, masks, _ = view(image, Reply(answer.params["answer"], findings, {}))
    row, column = image.slice_spacing_mm if isinstance(image, Volume) else (1.0, 1.0)
    height, width = rgb.shape[0] * row, rgb.shape[1] * column
    size = (round(SIDE * width / max(height, width)), round(SIDE * height / max(height, width)))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
    drawn = overlay(small, [(name, _resized(mask, size)) for name, mask in masks])
    tile = Image.new("RGB", (SIDE, SIDE), (0, 0, 0))
    tile.paste(Image.fromarray(drawn), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return tile


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    grey = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BOX)
    return np.asarray(grey) > 127


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], answer: Answer, note: str) -> None:
    y = float(at[1])
    parts = (
        (answer.question.text, 18, INK, 52, 2),
        (answer.params["answer"], 16, INK, 60, 4),
        (note, 14, QUIET, 70, 2),
    )
    for text, points, colour, width, most in parts:
        font = ImageFont.load_default(points)
        lines = textwrap.wrap(text, width, max_lines=most, placeholder=" ...")
        for line in lines:
            draw.text((at[0], y), line, fill=colour, font=font)
            y += points * 1.3
        y += 5
