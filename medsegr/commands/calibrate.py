"""`medsegr calibrate` (hidden: for those who make checkpoints): fit confidence and denial anew, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory whose config.json is changed.")],
    qa: Annotated[list[Path], typer.Option(help="MedSeg-QA files that it was trained on, of one folder.")],
    calibration_share: Annotated[
        float, typer.Option(help="Share of training patients that was kept out of training.")
    ] = 0.05,
    licence: Annotated[
        str, typer.Option(help="'permissive' leaves the other sets out, as in training.")
    ] = "any",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Fit the confidence and the rule for denials on the patients that were kept out of training; a few minutes on one core."""
    from medsegr.errors import MedSegRError
    from medsegr.model.checkpoint import read_config
    from medsegr.training.calibrate import kept_for_calibration, recalibrate
    from medsegr.training.images import load_cases
    from medsegr.training.pretrain import PretrainOptions, read_conversations

    size = read_config(checkpoint).image_size
    conversations, root = read_conversations(
        PretrainOptions(qa=tuple(qa), out=checkpoint, licence=licence, steps=1)
    )
    kept = [
        case
        for case in load_cases(conversations, root, size)
        if kept_for_calibration(case, calibration_share)
    ]
    if not kept:
        raise MedSegRError(
            "None of these patients was kept out of training; expected a larger --calibration-share."
        )
    found = recalibrate(checkpoint, kept, device)
    denial = found["denial"]
    Console().print(
        f"Confidence fitted on {found['findings']} findings of {found['patients_kept_out']} patients."
    )
    Console().print(
        f"Asked by name, {denial['present_denied']:.1%} of {denial['present']} present and {denial['absent_denied']:.1%} of "
        f"{denial['absent']} absent structures are denied."
        if denial["rule"]
        else "Too few questions by name: a denial still hangs on the word 'No' alone."
    )
