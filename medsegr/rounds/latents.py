"""Compact latents: encoder maps of training images, small enough to travel with a checkpoint in place of the images.

The finest map is projected on its principal components (one basis for the file); all are stored in 4 bits per value with a range
per channel and picture. `Latents.of(n)` gives maps that the model's own heads read.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medsegr.errors import CheckpointError
from medsegr.model.encoder import Trunk
from medsegr.rounds.errors import DAMAGED

FORMAT = 1
LEVELS = 15
COMPONENTS = {"d2": 12}
"""Principal components kept of a map; the others keep all their channels. (With 32 of the 96 components of `d4` the overview no
longer saw about half of the teeth in two pictures: what tells structures apart is not what varies most.)"""
MAPS = tuple(Trunk.__dataclass_fields__)


@dataclass(frozen=True, eq=False)
class Latents:
    """The pictures of one file: `records` are plain JSON (what is asked about each), `labels` [N, S, S] uint8."""

    records: tuple[dict[str, Any], ...]
    labels: NDArray[np.uint8]
    _arrays: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.records)

    def of(self, n: int) -> Trunk:
        """Maps of picture `n` (B = 1, float32)."""
        return Trunk(**{name: self._map(name, n) for name in MAPS})

    def _map(self, name: str, n: int) -> Tensor:
        low, high = (self._arrays[f"{name}_{end}"][n].astype(np.float32) for end in ("low", "high"))
        shape = tuple(int(v) for v in self._arrays[f"{name}_shape"])
        packed = self._arrays[f"{name}_values"][n]
        values = np.stack([packed >> 4, packed & LEVELS], axis=-1).reshape(-1)[: int(np.prod(shape))]
        scaled = values.reshape(shape).astype(np.float32) / LEVELS
        found: Tensor = torch.from_numpy(
            scaled * _per_row(high - low, scaled.ndim) + _per_row(low, scaled.ndim)
        ).unsqueeze(0)
        if name not in COMPONENTS:
            return found
        basis, mean = (
            torch.from_numpy(self._arrays[f"{name}_{part}"].astype(np.float32)) for part in ("basis", "mean")
        )
        flat = (found.flatten(2).transpose(1, 2) @ basis + mean).transpose(1, 2)
        maps: Tensor = flat.reshape(1, -1, *found.shape[2:])
        return maps.clamp(min=0)  # what was stored came out of a ReLU


def write_latents(
    path: Path,
    trunks: Sequence[Trunk],
    labels: Sequence[NDArray[np.uint8]],
    records: Sequence[dict[str, Any]],
) -> None:
    """Store the maps (B = 1 each, all of one size) of several pictures with their label maps [S, S] and records."""
    arrays: dict[str, NDArray[Any]] = {
        "format": np.asarray(FORMAT),
        "labels": np.stack(labels),
        "records": np.frombuffer(json.dumps(list(records)).encode(), np.uint8),
    }
    for name in MAPS:
        maps = torch.cat([getattr(trunk, name) for trunk in trunks]).float()
        if name in COMPONENTS:
            maps = _project(maps, COMPONENTS[name], name, arrays)
        _quantise(maps.numpy(), name, arrays)
    work = path.with_name(f".{path.name}")
    _save(work, arrays)
    work.replace(path)


def read_latents(path: Path) -> Latents:
    """Read a file of latents; raises `CheckpointError`."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if int(arrays["format"]) != FORMAT:
            raise ValueError(f"format {int(arrays['format'])}")
        records = json.loads(bytes(arrays["records"]))
        return Latents(tuple(records), arrays["labels"], arrays)
    except DAMAGED as error:
        raise CheckpointError(
            f"{path.name} of the checkpoint cannot be read as latents of format {FORMAT} ({error}); copy the checkpoint anew."
        ) from error


def _save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An .npz as `np.savez_compressed` writes it, but by LZMA: a sixth smaller than by Deflate; `np.load` reads both."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)  # type: ignore[no-untyped-call]


def _project(maps: Tensor, count: int, name: str, arrays: dict[str, NDArray[Any]]) -> Tensor:
    """[N, C, h, w] -> [N, count, h, w] on the principal components of all pixels, whose basis goes into `arrays`."""
    flat = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    mean = flat.mean(0)
    sample = flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(1))[:200_000]] - mean
    _, vectors = torch.linalg.eigh(sample.T @ sample / len(sample))
    basis = vectors[:, -min(count, maps.shape[1]) :].T.contiguous()  # [count, C]
    arrays[f"{name}_basis"] = basis.numpy().astype(np.float16)
    arrays[f"{name}_mean"] = mean.numpy().astype(np.float16)
    projected: Tensor = (flat - mean) @ basis.T
    return projected.reshape(len(maps), *maps.shape[2:], -1).permute(0, 3, 1, 2).contiguous()


def _quantise(maps: NDArray[np.float32], name: str, arrays: dict[str, NDArray[Any]]) -> None:
    """4 bits per value between the 0.05 and 99.95 percentiles of each row (channel, or token) of each picture."""
    n, rows = maps.shape[:2]
    flat = maps.reshape(n, rows, -1)
    low, high = np.percentile(flat, (0.05, 99.95), axis=2).astype(np.float16)
    span = np.maximum((high - low).astype(np.float32), 1e-6)
    scaled = (flat - low[..., None].astype(np.float32)) / span[..., None]
    values = np.clip(np.rint(scaled * LEVELS), 0, LEVELS).astype(np.uint8).reshape(n, -1)
    if values.shape[1] % 2:
        values = np.pad(values, ((0, 0), (0, 1)))
    arrays |= {
        f"{name}_values": (values[:, ::2] << 4) | values[:, 1::2],
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_shape": np.asarray(maps.shape[1:]),
    }


def _per_row(values: NDArray[np.float32], ndim: int) -> NDArray[np.float32]:
    return values.reshape(-1, *[1] * (ndim - 1))
