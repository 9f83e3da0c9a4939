"""Fits `familiar.safetensors`: a linear rule between training images, changed as scanners and exports change them, and made-up
foreign pictures; its limit is set on patients kept out of the fit. No photograph and no validation image is used.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from sklearn.linear_model import LogisticRegression

from medsegr.familiar import CLIP, Familiarity, remove_familiarity, summary
from medsegr.imaging.resizing import resize_rgb
from medsegr.model.checkpoint import load_checkpoint
from medsegr.model.medsegr import MedSegR
from medsegr.qa.schema import Conversation
from medsegr.training.calibrate import kept_for_calibration
from medsegr.training.foreign import foreign_picture
from medsegr.training.images import Case

Rgb = NDArray[np.uint8]
KEPT_SHARE = 0.15
"""Share of the training patients that only the limit is set on."""
REFUSED = 0.01
"""Share of their images that may be called foreign: one of a hundred looks like no other of its set."""
ENOUGH = 40
"""Images without which no rule is fitted."""
STRENGTH = 0.1
"""Inverse regularisation of the rule; with 0.001 a third as many made-up pictures kept out of the fit lie beyond the limit."""


@dataclass(frozen=True)
class Fit:
    """A rule, and the share of images that it calls foreign: of training patients kept out, of the made-up pictures."""

    rule: Familiarity
    images: int
    kept: int
    kept_refused: float
    foreign_refused: float


def drawn_evenly(conversations: Sequence[Conversation], most: int, seed: int = 1) -> list[Conversation]:
    """What is asked about `most` images: one of each set in turn, at random, as long as the set has any left."""
    rng = random.Random(seed)
    sets: dict[str, dict[str, None]] = {}
    for conversation in conversations:
        sets.setdefault(conversation.dataset, {})[conversation.image] = None
    orders = [rng.sample(sorted(images), len(images)) for _, images in sorted(sets.items())]
    chosen = set([image for turn in zip_longest(*orders) for image in turn if image is not None][:most])
    return [c for c in conversations if c.image in chosen]


def changed(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """The picture after another crop, resolution, window and grain; what it shows is the same."""
    height, width = rgb.shape[:2]
    share = rng.uniform(0.7, 1.0)
    rows, columns = int(height * share), int(width * share)
    top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
    image = Image.fromarray(rgb[top : top + rows, left : left + columns])
    kind = rng.random()
    if kind < 0.4:
        smaller = rng.uniform(0.15, 0.6)
        size = (max(24, int(columns * smaller)), max(24, int(rows * smaller)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    elif kind < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2.0))))
    grey = (np.asarray(image) / 255.0) ** np.exp(rng.normal() * 0.25)
    grey = grey * rng.uniform(0.75, 1.2) + rng.uniform(-0.05, 0.05)
    if rng.random() < 0.2:
        grey = grey + rng.normal(size=grey.shape[:2])[..., None] * rng.uniform(0.0, 0.04)
    view: Rgb = (np.clip(grey, 0, 1) * 255).astype(np.uint8)
    return view


def features(model: MedSegR, pictures: Iterable[Rgb]) -> NDArray[np.float64]:
    """`summary` of each picture [H, W, 3], as [N, D]."""
    side = model.config.image_size
    device = next(model.parameters()).device
    rows = []
    with torch.inference_mode():
        for picture in pictures:
            rgb = torch.from_numpy(resize_rgb(picture, side))[None].to(device)
            rows.append(summary(model.encoder.trunk(model.normalise(rgb)))[0].numpy())
    return np.asarray(rows, dtype=np.float64)


def fit_rule(
    known: NDArray[np.float64], foreign: NDArray[np.float64], kept: Sequence[NDArray[np.float64]]
) -> Familiarity:
    """The rule between known [N, D] and foreign [M, D] features; of each kept [K, D] at most `REFUSED` lie beyond its limit."""
    mean, scale = known.mean(0), known.std(0) + 1e-6
    rows = np.clip((np.concatenate([known, foreign]) - mean) / scale, -CLIP, CLIP)
    truth = np.r_[np.zeros(len(known)), np.ones(len(foreign))]
    fitted = LogisticRegression(C=STRENGTH, max_iter=500, class_weight="balanced").fit(rows, truth)
    weight = fitted.coef_[0]
    scores = (np.sort(np.clip((group - mean) / scale, -CLIP, CLIP) @ weight) for group in kept)
    limit = max(group[len(group) - 1 - int(REFUSED * len(group))] for group in scores)
    tensors = [torch.tensor(value, dtype=torch.float32) for value in (mean, scale, weight, limit + 1e-4)]
    return Familiarity(*tensors)


def fit_familiarity(model: MedSegR, cases: Sequence[Case], seed: int = 1) -> Fit | None:
    """Fit the rule for `model` (in eval mode) on training images; two views of each, half as many made-up pictures. None
    where fewer than `ENOUGH` images are there to fit on, or of patients kept out."""
    kept = [case.rgb for case in cases if kept_for_calibration(case, KEPT_SHARE)]
    used = [case.rgb for case in cases if not kept_for_calibration(case, KEPT_SHARE)]
    if min(len(kept), len(used)) < ENOUGH:
        return None
    rng = np.random.default_rng(seed)
    side = model.config.image_size
    made_up = features(model, (foreign_picture(rng, side) for _ in range(max(50, len(used) // 2))))
    known = features(model, (view for rgb in used for view in (rgb, changed(rgb, rng))))
    own = features(model, kept)
    others = features(model, (changed(rgb, rng) for rgb in kept))
    rule = fit_rule(known, made_up, (own, others))

    def share(rows: NDArray[np.float64]) -> float:
        return float((rule.strangeness(torch.from_numpy(rows).float()) > 0).float().mean())

    return Fit(rule, len(used), len(kept), share(own), share(made_up))


def add_familiarity(directory: Path, cases: Sequence[Case], device: str = "cpu") -> Fit | None:
    """Fit the rule for the checkpoint in `directory` and write it there; a rule of other weights is removed."""
    remove_familiarity(directory)
    fit = fit_familiarity(load_checkpoint(directory, device).model, cases)
    if fit:
        fit.rule.save(directory)
    return fit
