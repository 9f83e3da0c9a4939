"""What the server needs to know of a checkpoint before, and without, loading it: where it is and which
structures it knows.
"""

from __future__ import annotations

import json
from pathlib import Path

from medsegr.errors import CheckpointError
from medsegr.model.large.presets import LARGE_PRESETS, no_adapter

EMBEDDED = Path(__file__).resolve().parent.parent / "weights" / "embedded"
MAX_TARGETS = 255
"""A label map has 8 bits."""


def checkpoint_folder(name_or_dir: str) -> Path:
    """The directory of a checkpoint, or of the weights that ship for "embedded"; raises `CheckpointError`."""
    if name_or_dir in LARGE_PRESETS:
        raise no_adapter(name_or_dir)
    folder = EMBEDDED if name_or_dir == "embedded" else Path(name_or_dir).expanduser().resolve()
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no checkpoint folder {folder}; name one with `--conf checkpoint DIR`."
        )
    return folder


def read_targets(folder: Path) -> tuple[str, ...]:
    """Names of the known structures in fixed order (label id = position + 1); raises `CheckpointError`."""
    path = folder / "config.json"
    try:
        targets = json.loads(path.read_text(encoding="utf-8"))["targets"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not name the checkpoint's targets ({type(error).__name__}); copy it anew."
        ) from error
    if (
        not isinstance(targets, list)
        or not all(isinstance(name, str) for name in targets)
        or len(targets) > MAX_TARGETS
    ):
        raise CheckpointError(f"`targets` in {path} must be a list of at most {MAX_TARGETS} names.")
    return tuple(targets)
