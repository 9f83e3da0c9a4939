"""Files appear whole or not at all: a reader's and a writer's output is made in a hidden folder and renamed at the end."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsegr.errors import MedSegRError
from medsegr.qa.formats.labels import MAX_VALUE, Mask, pack


class Shelf:
    """Where a reader puts images and masks: `images/` and `masks/` of a folder beside the MedSeg-QA file.

    Every method returns a path relative to that file. `notes` counts what could not be taken over.
    """

    def __init__(self, root: Path, folder: str) -> None:
        """`root`: the file's folder; `folder`: the name of the folder beside it."""
        self.root, self.folder = root, folder
        self.notes: Counter[str] = Counter()
        self._names: set[str] = set()
        self._copied: dict[Path, str] = {}
        self._values: dict[str, int] = {}

    def name(self, wanted: str) -> str:
        """`wanted`, or the first free of wanted_2, wanted_3, … (for images, masks and ids)."""
        wanted = "".join(c if c.isalnum() or c in "._-+" else "_" for c in wanted).strip(".") or "image"
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def image(self, source: Path, name: str) -> str:
        """Copy an image file as it is; the same file is copied once."""
        key = source.resolve()
        if key not in self._copied:
            suffix = ".nii.gz" if source.name.lower().endswith(".nii.gz") else source.suffix.lower()
            self._copied[key] = relative = f"{self.folder}/images/{name}{suffix}"
            shutil.copyfile(source, self.place(relative))
        return self._copied[key]

    def series(self, sources: Sequence[Path], name: str) -> str:
        """Copy the files of one DICOM series into a folder of their own, numbered in the order given."""
        folder = f"{self.folder}/images/{name}"
        for number, source in enumerate(sources, start=1):
            shutil.copyfile(source, self.place(f"{folder}/{number:04d}.dcm"))
        return folder

    def masks(
        self, masks: Iterable[tuple[str, Mask]], name: str, affine: NDArray[Any] | None = None
    ) -> list[tuple[str, tuple[int, ...]]]:
        """Pack masks with their labels into label maps; for each its file and values. With an affine: NIfTI.

        A label has the same value in the whole file (from the 255th label on, values are given out again).
        """
        values: list[int] = []

        def valued() -> Iterator[tuple[int, Mask]]:
            for label, mask in masks:
                values.append(self._values.setdefault(label, len(self._values) % MAX_VALUE + 1))
                yield values[-1], mask

        maps, places = pack(valued())
        suffix = ".png" if affine is None else ".nii.gz"
        files = [f"{self.folder}/masks/{name}{f'_{n}' if n else ''}{suffix}" for n in range(len(maps))]
        for file, labels in zip(files, maps, strict=True):
            save_labels(labels, self.place(file), affine)
        return [(files[place], (value,)) for place, value in zip(places, values, strict=True)]

    def place(self, relative: str) -> Path:
        """The path of a file to be written, its folder made."""
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def save_labels(labels: NDArray[Any], path: Path, affine: NDArray[Any] | None = None) -> None:
    """A label map as PNG, or with an affine (RAS) as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if affine is None:
        Image.fromarray(labels).save(path, format="PNG")
        return
    build: Any = nib.Nifti1Image
    image = build(labels, np.asarray(affine, float))
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nib.save(image, path)


@contextmanager
def drafted(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that becomes `out` if nothing is raised, and vanishes otherwise.

    Raises `MedSegRError` where `out` exists and is not an empty folder.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise MedSegRError(f"{out} exists already; a new folder is expected.")
    draft = hidden(out)
    try:
        yield draft
        if out.is_dir():
            out.rmdir()
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def hidden(out: Path) -> Path:
    """A new hidden folder beside `out`; raises `MedSegRError` where it cannot be made."""
    draft = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise MedSegRError(
            f"{out} cannot be written ({error.strerror}); a folder with room is expected."
        ) from error
    return draft


def copy_picture(source: Path, target: Path) -> bool:
    """Copy a picture, re-encoded only where the suffix of `target` asks for another format.

    JPEG in quality 95. Returns whether the copy is exact (True for the same format and for PNG).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    jpeg = (".jpg", ".jpeg")
    if source.suffix.lower() == target.suffix.lower() or {
        source.suffix.lower(),
        target.suffix.lower(),
    } <= set(jpeg):
        shutil.copyfile(source, target)
        return True
    with Image.open(source) as image:
        if target.suffix.lower() not in jpeg:
            image.save(target)
            return True
        _eight_bit(image).save(target, format="JPEG", quality=95)
    return False


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit: the high byte
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")
