"""`medsegr card` (hidden: for those who make checkpoints): put measured figures and citations into a checkpoint's card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def card(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory whose card.md is changed.")],
    figures: Annotated[Path, typer.Option(help="metrics.json of `medsegr evaluate` of this checkpoint.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the training sets, for what they ask to be cited.")
    ] = None,
) -> None:
    """Write the figures of an evaluation into card.md, in place of those that are there."""
    from medsegr.evaluation.card_figures import add_figures

    add_figures(checkpoint, figures, data)
