"""Does a frozen sentence encoder hear questions that training never asked better than embeddings trained from scratch?

    python benchmarks/question_encoder.py --qa QA.jsonl --data DIR --vision CHECKPOINT [--steps 300] [--every 4]

Both arms get the same conversations, steps and seed, a fresh language model, and the frozen image encoder and mask decoder of
CHECKPOINT; they differ in how the question reaches the language model. Answers are generated freely on validation images.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medsegr.evaluation.run import EvaluateOptions
from medsegr.evaluation.run import run as evaluate
from medsegr.training.pretrain import PretrainOptions
from medsegr.training.pretrain import run as pretrain

ARMS = ("minilm", "scratch")
FIGURES = ("named_right", "dice", "emission", "chose_target")


def measure(arm: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train one arm and evaluate it."""
    out = pretrain(
        PretrainOptions(
            qa=(options.qa,), out=folder / arm, init_vision=options.vision, stage="language", question_encoder=arm,
            steps=options.steps, warmup_steps=50, calibration_share=0.0,
        )
    )  # fmt: skip
    return evaluate(
        EvaluateOptions(
            out=folder / f"{arm}-eval",
            data=options.data,
            checkpoint=str(out),
            every=options.every,
            scales=(1.0,),
        )
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qa", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vision", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=4)
    options = parser.parse_args()
    table = Table("figure", *(f"{arm}, {kind}" for arm in ARMS for kind in ("explicit", "held-out implicit")))
    with tempfile.TemporaryDirectory() as folder:
        found = {arm: measure(arm, options, Path(folder)) for arm in ARMS}
    for figure in FIGURES:
        table.add_row(
            figure, *(f"{found[arm][kind][figure]:.3f}" for arm in ARMS for kind in ("explicit", "implicit"))
        )
    table.add_row(
        "N-acc", *(f"{found[arm]['n_acc']:.3f}" if k == 0 else "" for arm in ARMS for k in range(2))
    )
    Console().print(table)


if __name__ == "__main__":
    main()
