"""Label maps on this server's disk, one for each image and tag, with what is known about each in a JSON file beside it.

The JSON is written last and names the label's file, so a crash at any instant leaves the old label or the new one, whole.
Nothing is remembered: what another process saves is seen at once.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegr.dicom.headers import valid_uid
from medsegr.web.errors import Refusal

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
SUFFIX = re.compile(r"(?:\.nii\.gz|\.[A-Za-z0-9]{1,8})$")
IMAGES = "images"
LABELS = "labels"


@dataclass(frozen=True)
class Label:
    """A label map: its file, and what was saved with it."""

    path: Path
    info: dict[str, Any]


class LabelFiles:
    """Files below `root`: labels/TAG/UID.json and UID.RANDOM.SUFFIX, images/UID.json for what is known about an image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._writing = threading.RLock()

    def tags(self) -> list[str]:
        """Tags that have labels."""
        with suppress(OSError):
            return sorted(
                p.name for p in (self.root / LABELS).iterdir() if p.is_dir() and self.images(p.name)
            )
        return []

    def images(self, tag: str) -> list[str]:
        """Ids of images that have a label with this tag."""
        with suppress(OSError):
            return sorted(path.stem for path in self._folder(tag).glob("*.json"))
        return []

    def get(self, image_id: str, tag: str) -> Label | None:
        """The label of an image, None where there is none."""
        known = _read(self._folder(tag) / f"{_checked(image_id)}.json")
        if not known or not isinstance(known.get("file"), str):
            return None
        return Label(self._folder(tag) / Path(known["file"]).name, dict(known.get("info") or {}))

    def save(self, image_id: str, tag: str, file: Path, info: Mapping[str, Any]) -> Label:
        """Copy `file` in place of the label there was."""
        folder, found = self._folder(tag), SUFFIX.search(file.name)
        path = folder / f"{_checked(image_id)}.{secrets.token_hex(4)}{found.group() if found else ''}"
        with self._writing:
            before = self.get(image_id, tag)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                shutil.copyfile(file, path)
                _sync(path)
                known = {"file": path.name, "info": {"ts": int(time.time()), **info}}
                _write(folder / f"{image_id}.json", known)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            if before:
                before.path.unlink(missing_ok=True)
        return Label(path, known["info"])

    def remove(self, image_id: str, tag: str) -> None:
        """Forget a label; nothing happens where there is none."""
        with self._writing:
            before = self.get(image_id, tag)
            (self._folder(tag) / f"{image_id}.json").unlink(missing_ok=True)
            if before:
                before.path.unlink(missing_ok=True)

    def update(self, image_id: str, tag: str, info: Mapping[str, Any]) -> None:
        """Add to what is known about a label; raises `Refusal` 404 where there is none."""
        with self._writing:
            label = self.get(image_id, tag)
            if label is None:
                raise Refusal(404, "This image has no label with this tag.")
            known = {"file": label.path.name, "info": {**label.info, **info}}
            _write(self._folder(tag) / f"{image_id}.json", known)

    def about_image(self, image_id: str) -> dict[str, Any]:
        """What was noted about an image."""
        return _read(self.root / IMAGES / f"{_checked(image_id)}.json")

    def note_image(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Add to what is noted about an image."""
        with self._writing:
            folder = self.root / IMAGES
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(folder / f"{_checked(image_id)}.json", {**self.about_image(image_id), **info})

    def _folder(self, tag: str) -> Path:
        name = str(getattr(tag, "value", tag))
        if not TAG.fullmatch(name):
            raise Refusal(422, "A tag has 1 to 64 letters, digits, hyphens and underscores.")
        return self.root / LABELS / name


def _checked(image_id: str) -> str:
    if not valid_uid(image_id):
        raise Refusal(404, "There is no image of this id; a SeriesInstanceUID (digits and dots) is expected.")
    return image_id


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """In one step: the old content or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, default=str)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
