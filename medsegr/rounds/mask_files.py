"""Masks on disk: one packed file per turn or correction, complete and on the disk before its row speaks of it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegr.files import sync
from medsegr.rounds.errors import DAMAGED, StoreError


@dataclass(frozen=True, eq=False)
class StoredMask:
    """A finding's whole mask, bool on the grid that `geometry` (plain JSON) describes."""

    mask: NDArray[np.bool_]
    geometry: dict[str, Any]


@dataclass(frozen=True, eq=False)
class PackedMasks:
    """All masks of one reply: a `numpy.packbits` string per finding, each of an array of `shape`."""

    packed: tuple[bytes, ...]
    shape: tuple[int, ...]
    geometry: dict[str, Any]


class MaskFiles:
    """The files `<xx>/<id>.npz` under `folder`; ids have 32 hexadecimal digits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, id_: str) -> Path:
        """Where the masks of `id_` are, or would be."""
        return self.folder / id_[:2] / f"{id_}.npz"

    def write(self, id_: str, masks: Sequence[bytes], shape: Sequence[int], geometry: dict[str, Any]) -> None:
        """Store `masks` (none is fine: the grid alone) as a whole file; whatever interrupts it leaves none."""
        path = self.path(id_)
        arrays: dict[str, NDArray[Any]] = {
            f"packed_{n}": np.frombuffer(mask, np.uint8) for n, mask in enumerate(masks, start=1)
        }
        arrays["shape"] = np.asarray(shape, np.int64)
        arrays["geometry"] = np.frombuffer(json.dumps(geometry).encode(), np.uint8)
        write_arrays(path, arrays)

    def read(self, id_: str, n: int) -> StoredMask:
        """Mask `n` (from 1) of `id_`; mask 0 is an empty one on their grid. Raises `StoreError`."""
        masks = self._load(id_, [n] if n else [])
        count = int(np.prod(masks.shape))
        if not n:
            return StoredMask(np.zeros(masks.shape, np.bool_), masks.geometry)
        flat = np.unpackbits(np.frombuffer(masks.packed[0], np.uint8), count=count)
        return StoredMask(flat.view(np.bool_).reshape(masks.shape), masks.geometry)

    def read_packed(self, id_: str, count: int) -> PackedMasks:
        """The first `count` masks of `id_`, as they were stored; raises `StoreError`."""
        return self._load(id_, range(1, count + 1))

    def remove(self, id_: str) -> None:
        """Forget the masks of `id_`, if there are any."""
        self.path(id_).unlink(missing_ok=True)

    def _load(self, id_: str, numbers: Sequence[int]) -> PackedMasks:
        try:
            with np.load(self.path(id_), allow_pickle=False) as stored:
                return PackedMasks(
                    tuple(stored[f"packed_{n}"].tobytes() for n in numbers),
                    tuple(int(side) for side in stored["shape"]),
                    json.loads(bytes(stored["geometry"])),
                )
        except DAMAGED as error:
            raise StoreError(
                "These masks are lost or damaged; restore the state folder, or ask the question again."
            ) from error


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Put a compressed .npz in place of `path`, whole and on the disk when this returns; whatever interrupts it leaves the
    old file or none. The folder of `path` is made when missing; the one above it must exist.
    """
    path.parent.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".npz", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    for folder in (path.parent, path.parent.parent):  # the names must outlive a power cut as well
        sync(folder)
