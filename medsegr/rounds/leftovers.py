"""What stays of a removed patient's images outside the database: labels of stock clients, skips, looks. A running server holds
the ids of skipped and looked-at images in memory until it is started again.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from medsegr.files import write_whole

LABELS = ("labels/labels", "labels/images")
"""Below the state folder: label maps and notes of an archive's images, each file named by its image and a dot."""
LINES = ("skipped.jsonl", "looks/*.jsonl")
"""JSON lines, each with its `image`."""


def forget_images(state: Path, images: Collection[str]) -> None:
    """Delete label files and lines about these images; what is not there is fine."""
    for folder in LABELS:
        for path in (state / folder).rglob("*"):
            if path.is_file() and any(path.name.startswith(f"{image}.") for image in images):
                path.unlink(missing_ok=True)
    for pattern in LINES:
        for path in state.glob(pattern):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            kept = [line for line in lines if _image(line) not in images]
            if len(kept) < len(lines):
                write_whole(path, "\n".join(kept).encode())


def _image(line: str) -> str | None:
    """The image that a line is about; None where a crash cut the line off."""
    try:
        return str(json.loads(line)["image"])
    except (ValueError, KeyError, TypeError):
        return None
