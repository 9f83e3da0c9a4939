"""`medsegr replay` (hidden: for those who make checkpoints): store what a checkpoint needs to remember, as compact latents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

STRUCTURES_POWER = 0.4
"""Sets with many structures are to be remembered in more pictures than those with one."""


def replay(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory to write replay.npz into.")],
    qa: Annotated[list[Path], typer.Option(help="MedSeg-QA files that it was trained on, of one folder.")],
    side: Annotated[
        int, typer.Option(help="Side in pixels that the pictures are encoded at; 0 = the checkpoint's.")
    ] = 0,
    pictures: Annotated[int, typer.Option(help="Pictures that rounds train on.")] = 44,
    regression: Annotated[
        int, typer.Option(help="Pictures of patients kept out of training that rounds are judged on.")
    ] = 38,
    licence: Annotated[
        str, typer.Option(help="'permissive' leaves the other sets out, as in training.")
    ] = "any",
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Choose training pictures that show every structure, and store their encoder maps for rounds of learning."""
    from medsegr.model.checkpoint import load_checkpoint, read_config
    from medsegr.rounds.replay import REPLAY, choose, well_known, write_replay
    from medsegr.training.calibrate import kept_for_calibration
    from medsegr.training.images import load_cases
    from medsegr.training.pretrain import PretrainOptions, read_conversations

    conversations, root = read_conversations(
        PretrainOptions(qa=tuple(qa), out=checkpoint, licence=licence, steps=1)
    )
    cases = load_cases(conversations, root, side or read_config(checkpoint).image_size)
    trained = [c for c in cases if not kept_for_calibration(c, 0.05)]
    kept = [c for c in cases if kept_for_calibration(c, 0.05)]
    model = load_checkpoint(checkpoint).model
    parts = {
        "replay": choose(well_known(model, trained), pictures, seed, STRUCTURES_POWER),
        "regression": choose(kept, regression, seed),
    }
    write_replay(checkpoint / REPLAY, model, parts, seed=seed)
    size = (checkpoint / REPLAY).stat().st_size / 2**20
    Console().print(
        f"{len(parts['replay'])} pictures to remember and {len(parts['regression'])} to be judged on: {size:.1f} MiB."
    )
