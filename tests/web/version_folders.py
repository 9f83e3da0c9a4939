"""Checkpoint directories of several versions for the fake predictor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fake_predictor import TARGETS


def write_version(folder: Path, version: str, targets: Sequence[str] = TARGETS) -> Path:
    """`config.json` with the targets and `meta.json` with the version."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"targets": list(targets)}))
    (folder / "meta.json").write_text(json.dumps({"version": version, "licence": "CC0"}))
    return folder
