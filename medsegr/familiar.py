"""Does a picture look like what the checkpoint was trained on? One number from maps that the encoder computes anyway.

`familiar.safetensors` beside the weights holds a linear rule, fitted by `medsegr.training.fit_familiar`; the predictor reads it
if it is there and then outlines nothing in foreign pictures. It looks at the convolutions' maps only, which no fine-tuning round
changes: a rule means the same in every later version, and a round only widens it. No question is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medsegr.errors import CheckpointError
from medsegr.files import write_whole
from medsegr.model.checkpoint import read_meta
from medsegr.model.encoder import Trunk
from medsegr.model.question import file_sha256

FILE = "familiar.safetensors"
NAMES = ("mean", "scale", "weight", "limit")
CLIP = 8.0
"""Standard deviations beyond which one feature tells no more: a single odd value must not decide."""
MARGIN = 0.1
"""Share of the spread of pictures that the limit is raised beyond the strangest of them."""
LEAST_MARGIN = 0.01
"""The limit is raised by this at the least: maps in half precision differ by less."""
FOREIGN_TEXT = (
    "This picture does not look like anything that this model was trained on, so it outlines nothing in it."
)


@dataclass(frozen=True)
class Familiarity:
    """The rule: foreign where `weight` . clip((features - `mean`) / `scale`) exceeds `limit`. All [D] but `limit` []."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    limit: Tensor

    def strangeness(self, features: Tensor) -> Tensor:
        """features [B, D] of `summary` -> [B]; above 0 is foreign."""
        standard = ((features.to(self.mean) - self.mean) / self.scale).clamp(-CLIP, CLIP)
        return standard @ self.weight - self.limit

    def foreign(self, features: Tensor) -> bool:
        """Whether the one picture with `features` [1, D] looks like nothing that the model was trained on."""
        return bool(self.strangeness(features)[0] > 0)

    def widened(self, features: Tensor) -> Familiarity:
        """The same rule, its limit raised such that none of the pictures with `features` [B, D] is foreign; itself where none is.

        Beyond the strangest there is room for `MARGIN` of the spread (strangest less most familiar) of these pictures, since the
        next ones of the same source will not be just as strange. Features that are not finite are passed over.
        """
        scores = self.strangeness(features)
        scores = scores[scores.isfinite()]
        if not len(scores) or scores.max() <= 0:
            return self
        room = (MARGIN * (scores.max() - scores.min())).clamp(min=LEAST_MARGIN)
        return replace(self, limit=self.limit + scores.max() + room)

    def save(self, directory: Path) -> Path:
        """Write the file beside a checkpoint's weights, and its SHA-256 into `meta.json` if there is one."""
        path = directory / FILE
        save_file({name: getattr(self, name).float().contiguous() for name in NAMES}, path)
        path.chmod(0o644)  # safetensors writes for the owner alone; a server may be another user
        _record(directory, file_sha256(path))
        return path


def load_familiarity(directory: Path, sha256: str | None = None) -> Familiarity | None:
    """The rule of the checkpoint in `directory`, None where it has none; raises `CheckpointError` for a damaged file, or one that
    has not the recorded `sha256`."""
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        found = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{FILE} of the checkpoint cannot be read ({error}); copy the checkpoint anew."
        ) from error
    if sha256 and file_sha256(path) != sha256:
        raise CheckpointError(
            f"{FILE} does not have the SHA-256 that meta.json records; copy the checkpoint anew."
        )
    size = found["mean"].shape if "mean" in found else torch.Size()
    if set(found) != set(NAMES) or len(size) != 1 or any(found[n].shape != size for n in NAMES[1:3]):
        raise CheckpointError(
            f"{FILE} of the checkpoint must hold {', '.join(NAMES)} of one length; fit it anew."
        )
    return Familiarity(**found)


def remove_familiarity(directory: Path) -> None:
    """Take the rule, if there is one, out of the checkpoint in `directory`."""
    if (directory / FILE).is_file():
        (directory / FILE).unlink()
        _record(directory, None)


def summary(trunk: Trunk) -> Tensor:
    """[B, D] float32 on the CPU: mean and deviation over the picture of every channel of every map; of the fine maps every second
    and every fourth row and column will do, at a tenth of the cost."""
    fine = (trunk.d4[..., ::2, ::2], trunk.d2[..., ::4, ::4])
    maps = [trunk.deep.transpose(1, 2), *(m.flatten(2) for m in (trunk.d16, *fine))]
    parts = []
    for m in maps:
        mean = m.float().mean(2, keepdim=True)
        spread = (m - mean).square().mean(2).sqrt()  # five times as fast as torch.std on such strides
        parts += [mean[..., 0], spread]
    return torch.cat(parts, dim=1).cpu()


def _record(directory: Path, sha256: str | None) -> None:
    """Note the file's hash in `meta.json`, or that there is no such file."""
    if not (directory / "meta.json").is_file():
        return
    meta = read_meta(directory)
    hashes = {name: value for name, value in meta["sha256"].items() if name != FILE}
    if sha256:
        hashes[FILE] = sha256
    text = json.dumps({**meta, "sha256": hashes}, indent=1, ensure_ascii=False) + "\n"
    write_whole(directory / "meta.json", text)
