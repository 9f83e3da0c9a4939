"""Specialists: for each modality one U-Net that outlines every structure known of it. They are told what to outline, so they
show what the images alone give without any language."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets.unet import UNet
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from medsegr.errors import CheckpointError
from medsegr.evaluation.overlap import Mask
from medsegr.files import write_whole
from medsegr.imaging import Picture, to_rgb
from medsegr.imaging.resizing import resize_rgb

CHANNELS = (16, 32, 64, 128, 256)
"""Widths at strides 1, 2, 4, 8 and 16; with two residual units each, 1.6 million weights."""
WEIGHTS, OPTIONS = "specialists.safetensors", "specialists.json"


@dataclass(frozen=True)
class SpecialistConfig:
    """`targets`: the structures of each modality, one output each; images are resized to `image_size` squared and normalised as
    `ModelConfig` says."""

    targets: Mapping[str, tuple[str, ...]]
    image_size: int
    pixel_mean: float
    pixel_std: float
    channels: tuple[int, ...] = CHANNELS


class Specialists(nn.Module):
    """MONAI's residual U-Nets (Kerfoot et al. 2018) with instance normalisation, one per modality."""

    def __init__(self, config: SpecialistConfig) -> None:
        super().__init__()
        self.config = config
        self.nets = nn.ModuleDict(
            {
                modality: UNet(
                    spatial_dims=2,
                    in_channels=5,
                    out_channels=len(names),
                    channels=config.channels,
                    strides=(2,) * (len(config.channels) - 1),
                    num_res_units=2,
                )
                for modality, names in config.targets.items()
            }
        )

    def forward(self, modality: str, rgb: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] -> logits [B, n_targets, S, S]. A net is told the place of each pixel, as our encoder is."""
        pixels = (rgb.permute(0, 3, 1, 2).float() / 255 - self.config.pixel_mean) / self.config.pixel_std
        height, width = pixels.shape[2:]
        place = torch.stack(
            torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        )
        place = place.to(pixels.device).expand(len(pixels), -1, -1, -1)
        logits: Tensor = self.nets[modality](torch.cat([pixels, place], dim=1))
        return logits


class SpecialistOutlines:
    """Outlines the structure that a question is about, told its name. See `questions.Outlines`."""

    def __init__(self, specialists: Specialists) -> None:
        self.specialists = specialists.eval()
        self._names: Sequence[str] = ()
        self._logits = torch.zeros(0, 1, 1)
        self._size = (1, 1)

    @torch.inference_mode()
    def set_image(self, picture: Picture, modality: str) -> None:
        """All outputs of the modality's net for this picture; a modality without a net has none."""
        rgb: NDArray[np.uint8] = to_rgb(picture.pixels, modality, picture.body_part)
        self._size = rgb.shape[0], rgb.shape[1]
        self._names = self.specialists.config.targets.get(modality, ())
        if self._names:
            small = resize_rgb(rgb, self.specialists.config.image_size)
            self._logits = self.specialists(modality, torch.from_numpy(small).unsqueeze(0))[0]

    def draw(self, question: str, target: str) -> Mask:
        """[H, W] bool; nothing for a structure that the net was not trained for."""
        if target not in self._names:
            return np.zeros(self._size, dtype=bool)
        logits = self._logits[self._names.index(target)]
        full = F.interpolate(logits[None, None], size=self._size, mode="bilinear", align_corners=False)
        drawn: Mask = full[0, 0].numpy() > 0
        return drawn


def save_specialists(specialists: Specialists, folder: Path, images: int) -> None:
    """Write weights and options into `folder`, the options last: a folder without them is unfinished. images: how many were
    seen."""
    config = specialists.config
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in specialists.state_dict().items()}, folder / WEIGHTS)
    options = {
        "targets": {modality: list(names) for modality, names in config.targets.items()},
        "image_size": config.image_size,
        "pixel_mean": config.pixel_mean,
        "pixel_std": config.pixel_std,
        "channels": list(config.channels),
        "images": images,
    }
    write_whole(folder / OPTIONS, json.dumps(options, indent=1) + "\n")


def load_specialists(folder: Path) -> tuple[Specialists, int]:
    """What `save_specialists` wrote, and how many images were seen; raises `CheckpointError`."""
    try:
        options = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
        config = SpecialistConfig(
            {modality: tuple(names) for modality, names in options["targets"].items()},
            int(options["image_size"]),
            float(options["pixel_mean"]),
            float(options["pixel_std"]),
            tuple(options["channels"]),
        )
        specialists = Specialists(config)
        specialists.load_state_dict(load_file(folder / WEIGHTS))
        return specialists, int(options["images"])
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} holds no specialists that can be read ({error}); remove it and train them anew."
        ) from error
