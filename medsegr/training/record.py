"""What a run writes about itself into `meta.json`: data, licences, settings, versions."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
import transformers

import medsegr
from medsegr.model.checkpoint import read_meta, resolve
from medsegr.model.medsegr import MedSegR
from medsegr.model.question import file_sha256
from medsegr.training.batches import count_by_set
from medsegr.training.images import Case
from medsegr.training.state import Moment

if TYPE_CHECKING:
    from medsegr.training.pretrain import PretrainOptions

PERMISSIVE, NONCOMMERCIAL = "CC BY 4.0", "CC BY-NC-SA 4.0"


def weights_licence(options: PretrainOptions, cases: Sequence[Case]) -> str:
    """The licence that the images allow, and the weights that the run began with."""
    sources = [path for path in (options.init, options.init_vision) if path]
    free = {c.licence_class for case in cases for c in case.conversations} == {"permissive"}
    inherited = all(read_meta(resolve(path))["licence"] == PERMISSIVE for path in sources)
    return PERMISSIVE if free and inherited else NONCOMMERCIAL


def run_record(
    options: PretrainOptions, model: MedSegR, cases: Sequence[Case], clock: Moment, losses: dict[str, float]
) -> dict[str, Any]:
    """What is written to `meta.json`: enough to repeat the run and to know what the weights may be used for."""
    return {
        "name": options.preset,
        "version": f"{options.preset}-{medsegr.__version__}-{clock.step}",
        "licence": weights_licence(options, cases),
        "use": "research use only, not a diagnosis",
        "data": {
            "qa": {path.name: file_sha256(path) for path in options.qa},
            "images": count_by_set(cases),
            "licences": options.licence,
        },
        "training": {
            "began_with": {
                name: read_meta(resolve(path))["version"]
                for name, path in (("init", options.init), ("init_vision", options.init_vision))
                if path
            },
            "earlier": [
                read_meta(resolve(path)).get("training", {})
                for path in (options.init, options.init_vision)
                if path
            ],
            "stage": options.stage,
            "steps": clock.step,
            "images": clock.step * options.sampling.images,
            "minutes": round(clock.seconds / 60, 1),
            "seed": options.seed,
            "image_size": model.config.image_size,
            "learning_rate": options.learning_rate,
            "loss": asdict(options.loss),
            "sampling": asdict(options.sampling),
            "augment": options.augment,
            "final_losses": {k: round(v, 4) for k, v in losses.items()},
        },
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "medsegr": medsegr.__version__,
        },
        "metrics": {},
    }
