"""What must not be forgotten: pictures that ship with a checkpoint as latents, and what the model in charge already sees in the
site's own pictures (self-distillation).

`replay.npz` beside the weights holds two parts: `replay` is trained on in every round, `regression` never; on the latter
champion and challenger are compared.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medsegr.imaging.resizing import resize_labels, resize_rgb
from medsegr.model.encoder import ImageFeatures, Trunk
from medsegr.model.grounding import Masks
from medsegr.model.losses import hard_dice
from medsegr.model.medsegr import MedSegR
from medsegr.qa.schema import Conversation
from medsegr.rounds.features import FeatureCase, encode
from medsegr.rounds.latents import Latents, read_latents, write_latents
from medsegr.training.images import Case

REPLAY = "replay.npz"
PARTS = ("replay", "regression")
SAME_PLACE = 0.5
"""Intersection over union from which on two outlines are of one thing."""
THUMBNAIL = 8
"""Side in pixels at which pictures are compared when replay is chosen."""
SEEN = 0.5
"""A structure counts as seen by the model in charge from this overview probability on."""
KNOWN = 0.5
"""Share of a set's pictures that replay may come from: those that the model knows best."""


def write_replay(
    path: Path, model: MedSegR, parts: Mapping[str, Sequence[Case]], conversations: int = 16, seed: int = 1
) -> None:
    """Encode the cases of each part, whose pictures may have another size than the model's square, and store them at `path`."""
    rng = random.Random(seed)
    trunks, labels, records = [], [], []
    for part, cases in parts.items():
        for case, feature in zip(cases, encode(model, cases, 1, seed), strict=True):
            asked = rng.sample(list(case.conversations), min(conversations, len(case.conversations)))
            trunks.append(feature.trunk)
            labels.append(case.labels)
            records.append(_record(case, part, asked))
    write_latents(path, trunks, labels, records)


def read_replay(checkpoint: Path) -> Mapping[str, list[FeatureCase]]:
    """The parts of the latents that ship with a checkpoint; empty lists where it has none. Raises `CheckpointError`."""
    found: dict[str, list[FeatureCase]] = {part: [] for part in PARTS}
    if not (checkpoint / REPLAY).is_file():
        return found
    latents = read_latents(checkpoint / REPLAY)
    for n, record in enumerate(latents.records):
        case = _case(record, latents, n)
        found[record["part"]].append(FeatureCase(case, torch.from_numpy(case.labels), latents.of(n)))
    return found


def choose(cases: Sequence[Case], count: int, seed: int, power: float = 0.0) -> list[Case]:
    """`count` cases: sets take turns (one with n structures n^`power` times as often as one with a single structure), and each
    gives one that shows its structures shown least so far, of equal ones that which looks least like those that it gave before
    (k-centre greedy: stains and scanners of a set differ)."""
    rng = random.Random(seed)
    pool = rng.sample(list(cases), len(cases))
    looks = {id(c): _thumbnail(c) for c in pool}
    structures: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        structures[case.dataset] |= case.present
    shown: dict[str, int] = defaultdict(int)
    given: dict[str, list[Case]] = defaultdict(list)

    def rank(case: Case) -> tuple[float, ...]:
        least = min((shown[name] for name in case.present), default=0)
        others = [np.abs(looks[id(case)] - looks[id(other)]).mean() for other in given[case.dataset]]
        turns = len(others) / max(1, len(structures[case.dataset])) ** power
        return turns, least, -len(case.present), -min(others, default=0.0)

    chosen: list[Case] = []
    while pool and len(chosen) < count:
        best = min(pool, key=rank)
        pool.remove(best)
        chosen.append(best)
        given[best.dataset].append(best)
        for name in best.present:
            shown[name] += 1
    return chosen


def well_known(model: MedSegR, cases: Sequence[Case]) -> list[Case]:
    """Of each set the share `KNOWN` of pictures in which `model`, prompted by the names of what they show, outlines it best.
    Replay is to hold what a model knows: where it is wrong there is nothing to hold, and a picture unlike all others (a child's
    jaw, premolars not yet through), taught in every round, moves what it had right in those."""
    sets: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for n, case in enumerate(cases):
        sets[case.dataset].append((_outlined_by_name(model, case), n))
    chosen = [n for scores in sets.values() for _, n in sorted(scores)[int(len(scores) * KNOWN) :]]
    return [cases[n] for n in sorted(chosen)]


def _outlined_by_name(model: MedSegR, case: Case) -> float:
    """Mean Dice of what a picture shows; 1 where it shows nothing."""
    shown = sorted(case.present & set(model.config.targets))
    if not shown:
        return 1.0
    masks = {name: np.isin(case.labels, case.values[name]) for name in shown}
    return float(np.mean(list(dice_by_name(model, encode(model, [case], 1, 0)[0].trunk, masks).values())))


@torch.inference_mode()
def dice_by_name(
    model: MedSegR, trunk: Trunk, masks: Mapping[str, np.ndarray[Any, np.dtype[np.bool_]]]
) -> dict[str, float]:
    """Dice of what `model`, prompted by the names of structures that it knows, outlines in one picture, with their masks
    [side, side]."""
    if not masks:
        return {}
    features = model.encoder.read(_full(trunk, model))
    drawn = prompted_by_name(model, features, [model.config.targets.index(name) for name in masks]).logits
    truth = torch.from_numpy(np.stack(list(masks.values()))).to(drawn.device)
    scores = hard_dice(_on_square(drawn, truth.shape[-1]), truth)
    return dict(zip(masks, scores.tolist(), strict=True))


def _full(trunk: Trunk, model: MedSegR) -> Trunk:
    """In float32, on the device of `model`; encoded maps are kept in main memory."""
    device = next(model.parameters()).device
    return replace(
        trunk, **{n: getattr(trunk, n).to(device).float() for n in type(trunk).__dataclass_fields__}
    )


def prompted_by_name(model: MedSegR, features: ImageFeatures, targets: Sequence[int]) -> Masks:
    """What the mask decoder outlines in one picture for these structures."""
    count, device = len(targets), features.embedding.device
    return model.grounding.decode(
        features,
        torch.zeros(count, dtype=torch.long, device=device),
        model.grounding.names(torch.tensor(targets, device=device)),
        torch.zeros(count, 1, 2, device=device),
        -torch.ones(count, 1, device=device),
    )


def _on_square(logits: Tensor, side: int) -> Tensor:
    """[N, h, w] -> [N, side, side]."""
    square = F.interpolate(logits[:, None].float(), (side, side), mode="bilinear", align_corners=False)
    return square[:, 0]


def _thumbnail(case: Case) -> np.ndarray[Any, np.dtype[np.float32]]:
    return resize_rgb(case.rgb, THUMBNAIL).astype(np.float32)


def distilled(
    model: MedSegR, feature: FeatureCase, known: Mapping[str, Any], most: int = 4
) -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Masks [S, S] of structures that the model in charge sees in a picture and that the correction says nothing of; `known` are
    the masks of those that it does. What lies where the clinician drew something is no other structure: it got its right name."""
    with torch.inference_mode():
        features = model.encoder.read(_full(feature.trunk, model))
        chances = features.present[0].sigmoid()
        side = feature.labels.shape[0]
        found = {}
        for n in chances.argsort(descending=True)[:most].tolist():
            name = model.config.targets[n]
            if float(chances[n]) < SEEN or name in known:
                continue
            masks = prompted_by_name(model, features, [n])
            if float(masks.presence[0]) <= 0:
                continue
            mask = (_on_square(masks.logits, side)[0] > 0).cpu().numpy()
            if mask.any() and not any(_same_place(mask, other, side) for other in known.values()):
                found[name] = mask
    return found


def _same_place(mask: np.ndarray[Any, Any], other: np.ndarray[Any, Any], side: int) -> bool:
    theirs = resize_labels(np.asarray(other, np.uint8), side) > 0
    both = np.count_nonzero(mask & theirs)
    return bool(both > SAME_PLACE * np.count_nonzero(mask | theirs))


def _record(case: Case, part: str, asked: Sequence[Conversation]) -> dict[str, Any]:
    return {
        "part": part,
        "image": case.image,
        "dataset": case.dataset,
        "patient_id": case.patient_id,
        "conversations": [c.to_json() for c in asked],
        "present": sorted(case.present),
        "absent": sorted(case.absent),
        "values": {name: list(values) for name, values in case.values.items()},
        "exhaustive": case.exhaustive,
    }


def _case(record: Mapping[str, Any], latents: Latents, n: int) -> Case:
    return Case(
        image=record["image"],
        dataset=record["dataset"],
        patient_id=record["patient_id"],
        mirror_x=False,
        mirror_y=False,
        rgb=np.zeros((0, 0, 3), np.uint8),
        labels=latents.labels[n],
        conversations=tuple(Conversation.from_json(c) for c in record["conversations"]),
        present=frozenset(record["present"]),
        absent=frozenset(record["absent"]),
        values={name: tuple(values) for name, values in record["values"].items()},
        exhaustive=record["exhaustive"],
    )
