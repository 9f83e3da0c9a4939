"""`medsegr familiar` (hidden: for those who make checkpoints): teach a checkpoint which pictures are familiar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def familiar(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint directory to write familiar.safetensors into.")
    ],
    qa: Annotated[list[Path], typer.Option(help="MedSeg-QA files that it was trained on, of one folder.")],
    licence: Annotated[
        str, typer.Option(help="'permissive' leaves the other sets out, as in training.")
    ] = "any",
    images: Annotated[
        int, typer.Option(help="At most this many images, drawn evenly from the sets (0: all).", min=0)
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Fit and store what tells foreign pictures from training images; about ten minutes for 2,000 images on one core."""
    from medsegr.errors import MedSegRError
    from medsegr.model.checkpoint import read_config
    from medsegr.training.fit_familiar import add_familiarity, drawn_evenly
    from medsegr.training.images import load_cases
    from medsegr.training.pretrain import PretrainOptions, read_conversations

    conversations, root = read_conversations(
        PretrainOptions(qa=tuple(qa), out=checkpoint, licence=licence, steps=1)
    )
    if images:
        conversations = drawn_evenly(conversations, images)
    fit = add_familiarity(
        checkpoint, load_cases(conversations, root, read_config(checkpoint).image_size), device
    )
    if fit is None:
        raise MedSegRError(
            "These files hold too few images to tell foreign pictures; expected some hundreds."
        )
    Console().print(
        f"Fitted on {fit.images} training images; of {fit.kept} images of other training patients {fit.kept_refused:.2%} are "
        f"called foreign, of the made-up pictures {fit.foreign_refused:.1%}."
    )
