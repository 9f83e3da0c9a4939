"""Does a picture look like what the checkpoint was trained on? One number from maps that the encoder computes anyway.

`familiar.safetensors` beside the weights holds a linear rule, fitted by `medsegr.training.fit_familiar`; the predictor reads it
if it is there and then outlines nothing in foreign pictures. Nothing here trains, and no question is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medsegr.errors import CheckpointError
from medsegr.model.encoder import ImageFeatures

FILE = "familiar.safetensors"
NAMES = ("mean", "scale", "weight", "limit")
CLIP = 8.0
"""Standard deviations beyond which one feature tells no more: a single odd value must not decide."""
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

    def foreign(self, image: ImageFeatures) -> bool:
        """Whether the one image of `image` looks like nothing that the model was trained on."""
        return bool(self.strangeness(summary(image))[0] > 0)

    def save(self, directory: Path) -> Path:
        """Write the file beside a checkpoint's weights."""
        path = directory / FILE
        save_file({name: getattr(self, name).float().contiguous() for name in NAMES}, path)
        path.chmod(0o644)  # safetensors writes for the owner alone; a server may be another user
        return path


def load_familiarity(directory: Path) -> Familiarity | None:
    """The rule of the checkpoint in `directory`, None where it has none; raises `CheckpointError` for a damaged file."""
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        found = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{FILE} of the checkpoint cannot be read ({error}); copy the checkpoint anew."
        ) from error
    size = found["mean"].shape if "mean" in found else torch.Size()
    if set(found) != set(NAMES) or len(size) != 1 or any(found[n].shape != size for n in NAMES[1:3]):
        raise CheckpointError(
            f"{FILE} of the checkpoint must hold {', '.join(NAMES)} of one length; fit it anew."
        )
    return Familiarity(**found)


def summary(image: ImageFeatures) -> Tensor:
    """[B, D] float32 on the CPU: mean and deviation over the picture of the deep tokens, the embedding and the finished maps."""
    cells = (image.embedding.shape[-1] // 2) ** 2
    deep = image.context[:, -cells:].transpose(1, 2)  # the overview's tokens come first
    maps = [deep, image.embedding.flatten(2), *(skip.flatten(2) for skip in image.skips)]
    parts = [part for m in maps for part in (m.float().mean(2), m.float().std(2))]
    return torch.cat(parts, dim=1).cpu()
