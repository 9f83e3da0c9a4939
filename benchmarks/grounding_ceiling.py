"""How well would masks be if the language part never erred? Every present structure of the validation images, prompted by name.

    python benchmarks/grounding_ceiling.py --data DIR [--checkpoint embedded] [--every 3]

The mask decoder gets the structure's own prompt (trained in the vision stage) in place of a `[SEG]` state. "outline" is the
overview's own drawing of the same structure, which no reply uses. Means are within a set, then over sets with five validation
images and more; `spinal_cord_mr` (one volume of an unseen contrast) and smaller sets are apart.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from medsegr.evaluation.metrics import chose_target, dice, mean_within_then_over
from medsegr.imaging import Picture, read_image, to_rgb
from medsegr.imaging.resizing import resize_rgb
from medsegr.model.checkpoint import load_checkpoint
from medsegr.model.medsegr import MedSegR
from medsegr.qa.folders import read_labelled_sets

MIN_PIXELS = 12
SMALL_SET = 5
APART = ("spinal_cord_mr",)
WAYS = ("prompt", "outline")


@torch.inference_mode()
def draw(model: MedSegR, rgb: np.ndarray, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits [T, s, s] of the targets [T] on rgb [H, W, 3], by prompt and by the overview."""
    features = model.encode_image(torch.from_numpy(resize_rgb(rgb, model.config.image_size))[None])
    n = len(targets)
    masks = model.grounding.decode(
        features,
        torch.zeros(n, dtype=torch.long),
        model.grounding.names(targets),
        torch.zeros(n, 1, 2),
        -torch.ones(n, 1),
    )
    coarse, fine = features.skips[-2:]
    return {"prompt": masks.logits, "outline": model.encoder.overview.outline(targets, coarse[0], fine[0])}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--every", type=int, default=3)
    options = parser.parse_args()
    model = load_checkpoint(options.checkpoint).model
    number = {name: i for i, name in enumerate(model.config.targets)}
    rows: dict[str, list[tuple[str, str, float]]] = {way: [] for way in WAYS}
    chose: dict[str, dict[str, list[bool]]] = {way: defaultdict(list) for way in WAYS}
    images: dict[str, int] = {}
    for source in read_labelled_sets(options.data):
        validation = [image for image in source.images if image.split == "val"][:: options.every]
        images[source.name] = len(validation)
        for image in validation:
            labels = np.asarray(Image.open(image.mask))
            truths = {t: np.isin(labels, v) for t, v in source.targets.items()}
            truths = {t: truth for t, truth in truths.items() if truth.sum() >= MIN_PIXELS and t in number}
            picture = read_image(image.image, source.modality)
            if not truths or not isinstance(picture, Picture):
                continue
            drawn = draw(
                model, to_rgb(picture.pixels, source.modality), torch.tensor([number[t] for t in truths])
            )
            for way, logits in drawn.items():
                full = F.interpolate(logits[:, None], size=labels.shape, mode="bilinear", align_corners=False)
                for (target, truth), mask in zip(truths.items(), full[:, 0].numpy() > 0, strict=True):
                    rows[way].append((source.name, target, dice(mask, truth)))
                    values = set(source.targets[target])
                    others = {o: m for o, m in truths.items() if not values & set(source.targets[o])}
                    if others:
                        chose[way][source.name].append(chose_target(mask, target, {target: truth, **others}))
    report(rows, chose, images)


def report(
    rows: dict[str, list[tuple[str, str, float]]],
    chose: dict[str, dict[str, list[bool]]],
    images: dict[str, int],
) -> None:
    """Print one table by set and the means."""
    table = Table("set", "images", *(f"{way} {what}" for way in WAYS for what in ("Dice", "right target")))
    sets = {way: mean_within_then_over(found)[1] for way, found in rows.items()}
    main_sets = [n for n, count in images.items() if count >= SMALL_SET and n not in APART]
    for name in sorted(set(sets["prompt"]) | set(sets["outline"])):
        cells = []
        for way in WAYS:
            right = chose[way].get(name)
            cells += [f"{sets[way].get(name, float('nan')):.3f}", f"{np.mean(right):.3f}" if right else "-"]
        table.add_row(name if name in main_sets else f"{name} (apart)", str(images[name]), *cells)
    means = []
    for way in WAYS:
        right = [value for found in chose[way].values() for value in found]
        means += [
            f"{np.mean([v for n, v in sets[way].items() if n in main_sets]):.3f}",
            f"{np.mean(right) if right else float('nan'):.3f}",
        ]
    table.add_row("mean over sets; all questions", "", *means, style="bold")
    Console().print(table)


if __name__ == "__main__":
    main()
