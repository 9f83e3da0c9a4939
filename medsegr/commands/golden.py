"""`medsegr golden` (hidden: for those who make checkpoints): keep today's answer to one question as the golden one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def golden(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint directory to write golden.json and two PNG files into.")
    ],
    organ: Annotated[
        str, typer.Option(help="The slice of the phantom that shows most of this organ is used.")
    ] = "liver",
    question: Annotated[str, typer.Option(help="What is asked.")] = "Where is the liver?",
    seed: Annotated[int, typer.Option(help="Which phantom.")] = 0,
) -> None:
    """Ask QUESTION about a slice of the torso phantom and store image and mask for `medsegr doctor`."""
    from medsegr.errors import QuestionError
    from medsegr.evaluation.metrics import dice
    from medsegr.golden import write_golden
    from medsegr.imaging import to_rgb
    from medsegr.phantom.torso import LABELS, make_torso
    from medsegr.predictor import Predictor

    if organ not in LABELS:
        raise QuestionError(f"The phantom has no '{organ}'; it has {', '.join(LABELS)}.")
    torso = make_torso(seed)
    volume, mask = torso.volume, torso.mask(organ)
    axes = tuple(axis for axis in range(3) if axis != volume.slice_axis)
    shown = int(mask.sum(axis=axes).argmax())
    pixels = to_rgb(volume.slice_pixels(shown), volume.modality, volume.body_part)
    kept = write_golden(checkpoint, Predictor.from_pretrained(checkpoint), pixels, question)
    reached = dice(kept.mask, volume.slice_from_volume(shown, mask))
    Console().print(
        f"Kept the {kept.label} of slice {shown}; Dice {reached:.3f} with the phantom's exact {organ}."
    )
