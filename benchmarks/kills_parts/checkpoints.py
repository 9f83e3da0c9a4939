"""What the server is started with: a tiny model of random weights where speed matters, and versions to switch between."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medsegr.rounds.database import Database
from medsegr.rounds.registry import Registry
from medsegr.rounds.version_files import remove

TEXTS = (
    "The <p>liver</p> [SEG] makes bile.",
    "The <p>left kidney</p> [SEG] lies below the spleen.",
    "Nothing of the kind is seen here.",
    "Outline the liver. Where is the left kidney? Please mark the spleen.",
)


def write_tiny(folder: Path, targets: Sequence[str] = ("liver", "left kidney")) -> Path:
    """A checkpoint of the shipped classes in the smallest size, untrained: it answers, and whatever it says is wrong."""
    import torch

    from medsegr.model.checkpoint import save_checkpoint
    from medsegr.model.medsegr import MedSegR
    from medsegr.model.presets import PRESETS
    from medsegr.model.tokens import train_tokenizer

    torch.manual_seed(0)
    config = replace(PRESETS["tiny"], question_encoder="scratch", targets=tuple(targets))
    model = MedSegR(config, train_tokenizer(list(TEXTS))).eval()
    save_checkpoint(model, folder, {"version": "tiny-0", "licence": "CC0"}, "# A tiny model\n")
    return folder


def register_spares(state: Path, checkpoint: Path, count: int) -> list[str]:
    """Names of `count` new versions with the weights of `checkpoint`, registered before the server starts: something to promote
    from the beginning on. Raises `StoreError`."""
    database = Database(state)
    registry = Registry(database, checkpoint)
    names = []
    for n in range(count):
        work = state / "rounds" / f"spare-{n}"
        shutil.copytree(checkpoint, work)
        for path in (work, *work.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        names.append(registry.register(work, registry.base.name, None, editor="benchmark").name)
        if work.exists():
            remove(work)
    database.dispose()
    return names
