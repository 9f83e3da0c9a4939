"""What the tests of corrections and label uploads send."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from medsegr.rounds.store import NewTurn, TurnStore
from medsegr.web.masks import Geometry

AFFINE = np.diag([-0.5, -0.5, 3.0, 1.0])
VOLUME = Geometry((16, 18, 7), affine=tuple(tuple(float(v) for v in row) for row in AFFINE))
PICTURE = Geometry((20, 30))


def block(geometry: Geometry, side: int) -> np.ndarray:
    """A mask with a block of this side at the origin."""
    mask = np.zeros(geometry.shape, bool)
    mask[tuple(slice(0, side) for _ in geometry.shape)] = True
    return mask


def finished(
    store: TurnStore,
    masks: dict[str, np.ndarray],
    geometry: Geometry = VOLUME,
    image: str = "vol",
    editor: str = "anonymous",
    client: str | None = "c1",
) -> str:
    """A turn with an answer that outlined `masks`."""
    turn_id = store.add(NewTurn(image, "Where?", (), editor, client))
    store.finish(
        turn_id,
        answer="Found it.",
        findings=[{"n": n, "label": label} for n, label in enumerate(masks, start=1)],
        model_version="v7",
        latencies={},
        masks=[np.packbits(mask).tobytes() for mask in masks.values()],
        shape=geometry.shape,
        geometry=geometry.to_json(),
    )
    return turn_id


def nrrd(mask: np.ndarray, header: bytes, packed: bool = True) -> bytes:
    """`mask` under the header text of `/turns/{id}/masks/0`, as a viewer writes it: uint8, x fastest."""
    values = mask.astype(np.uint8).tobytes(order="C" if mask.ndim == 2 else "F")
    if packed:
        return header + b"\n\n" + gzip.compress(values)
    return header.replace(b"encoding: gzip", b"encoding: raw") + b"\n\n" + values


def form(correction: Any, **masks: bytes) -> list[tuple[str, tuple[str | None, Any]]]:
    """The parts of `POST /medsegr/corrections`, for `files=`."""
    text = correction if isinstance(correction, str) else json.dumps(correction)
    return [("correction", (None, text)), *((name, (f"{name}.nrrd", data)) for name, data in masks.items())]


def label_form(content: bytes, name: str = "label.nii.gz", **params: Any) -> list[tuple[str, Any]]:
    """The parts of `PUT /datastore/label`."""
    return [("params", (None, json.dumps(params))), ("label", (name, content))]


def files_under(folder: Path) -> list[Path]:
    """Every file below `folder`."""
    return [path for path in folder.rglob("*") if path.is_file()]
