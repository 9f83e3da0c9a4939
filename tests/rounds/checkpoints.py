"""Directories that look like checkpoints, for the registry and for the fake predictor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

TARGETS = ("liver", "gallbladder", "spleen", "kidney")


def write_checkpoint(
    folder: Path, version: str = "base-1", targets: Sequence[str] = TARGETS, weights: bytes = b"weights"
) -> Path:
    """`config.json`, `meta.json`, weights that differ, and a part that no round changes."""
    (folder / "context").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"targets": list(targets)}))
    (folder / "meta.json").write_text(json.dumps({"version": version, "licence": "CC0"}))
    (folder / "grounding.safetensors").write_bytes(weights)
    (folder / "context" / "model.safetensors").write_bytes(b"language")
    return folder
