"""Slices of the torso phantom to be remembered beside what ships as latents: exact outlines, of nobody, no bigger than a seed.

The shipped network, which learnt on patients, outlines the phantom's abdomen as it outlines theirs. What it draws badly there
(lungs, which it knows from radiographs) is nothing to hold, and is not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from medsegr.imaging import to_rgb
from medsegr.imaging.resizing import resize_labels
from medsegr.model.medsegr import MedSegR
from medsegr.phantom import LABELS, Torso, make_torso
from medsegr.qa.facts import Concept
from medsegr.rounds.examples import Drawn, training_case
from medsegr.rounds.features import FeatureCase, encode
from medsegr.rounds.replay import dice_by_name

PHANTOM = "torso_phantom"
"""Name of the set that these pictures belong to."""
SHAPE, SPACING_MM = (192, 192, 20), (1.9, 1.9, 15.0)
SLICES = (5, 8, 11)
"""From the kidneys to the dome of the liver."""
MIN_PIXELS = 40
"""Structures of fewer pixels on the model's square are not asked for."""
OUTLINED = 0.7
"""Nor are those that the model in charge draws at a lower Dice."""


def phantom_slices(
    model: MedSegR, concepts: Mapping[str, Concept], bodies: int, side: int, seed: int
) -> list[FeatureCase]:
    """`SLICES` of each of `bodies` phantoms on squares of `side` pixels, with questions about what `model` outlines well in them.
    A slice in which that is nothing is left out."""
    names = [name for name in LABELS if name in model.config.targets and name in concepts]
    found = []
    for body in range(bodies if names else 0):
        torso = make_torso(100 * seed + body, SHAPE, SPACING_MM)
        for k in SLICES:
            drawn = _drawn(torso, k, names, side)
            bare = training_case(replace(drawn, masks={}), concepts, side, seed)
            trunk = encode(model, [bare], 1, seed)[0].trunk
            scores = dice_by_name(model, trunk, drawn.masks)
            known = {name: drawn.masks[name] for name, dice in scores.items() if dice >= OUTLINED}
            if known:
                case = training_case(replace(drawn, masks=known), concepts, side, seed)
                case = replace(case, dataset=PHANTOM)
                found.append(FeatureCase(case, torch.from_numpy(case.labels), trunk))
    return found


def _drawn(torso: Torso, k: int, names: Sequence[str], side: int) -> Drawn:
    """Slice `k` as the model is shown it, with masks [side, side] of the structures `names` that it shows enough of."""
    volume = torso.volume
    labels = resize_labels(np.ascontiguousarray(volume.slice_from_volume(k, torso.labels)), side)
    masks = {name: labels == LABELS[name] for name in names}
    shown = {name: mask for name, mask in masks.items() if np.count_nonzero(mask) >= MIN_PIXELS}
    rgb = to_rgb(volume.slice_pixels(k), volume.modality, volume.body_part)
    return Drawn(f"{PHANTOM}_{torso.seed}_{k}", f"{PHANTOM}_{torso.seed}", volume.modality, rgb, shown)
