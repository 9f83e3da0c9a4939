"""Learning curves of `medsegr pretrain` runs: what their logs say, smoothed, one line per run.

    python benchmarks/learning_curve.py OUT.resume [MORE.resume ...] --figures train_dice text --png curves.png

A run keeps `log.jsonl` in OUT.resume, one line of JSON each twenty steps. Runs that went on from one another are drawn one after
the other in the order given, for each figure those that have it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

TITLES = {"train_dice": "Dice of the decoded masks, training images", "text": "loss per word of the answer"}
SHARES = {"train_dice"}
"""Figures from 0 to 1; the others, losses, get a logarithmic axis."""
WIDTH = 9
"""Lines of the log that are averaged, 180 steps."""


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; raises `SystemExit` with a sentence where there is none."""
    path = folder / "log.jsonl"
    if not path.is_file():
        raise SystemExit(
            f"{path} does not exist; the OUT.resume folder of a `medsegr pretrain` run is expected."
        )
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def smoothed(values: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Moving mean over `WIDTH` lines, shorter at both ends."""
    ones = np.ones(WIDTH)
    counts = np.convolve(np.ones(len(values)), ones, "same")
    mean: np.ndarray[Any, np.dtype[np.float64]] = np.convolve(values, ones, "same") / counts
    return mean


def main() -> None:
    """Draw, and print where each run began and ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--figures", nargs="+", default=list(TITLES))
    parser.add_argument("--png", type=Path, required=True)
    options = parser.parse_args()
    logs = {run: read_log(run) for run in options.runs}

    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(options.figures), figsize=(5.5 * len(options.figures), 3.6), squeeze=False
    )
    for axis, name in zip(axes[0], options.figures, strict=True):
        offset = 0
        for run, lines in logs.items():
            kept = [(line["step"], line[name]) for line in lines if name in line]
            if not kept:
                continue
            steps, values = (list(column) for column in zip(*kept, strict=True))
            mean = smoothed(values)
            (drawn,) = axis.plot(np.asarray(steps) + offset, mean, label=run.name.removesuffix(".resume"))
            axis.plot(np.asarray(steps) + offset, values, ".", ms=2, alpha=0.4, color=drawn.get_color())
            print(f"{run.name}: {name} {mean[0]:.4f} -> {mean[-1]:.4f} over {steps[-1]} steps")
            offset += steps[-1]
        if name not in SHARES:
            axis.set_yscale("log")
        axis.set_title(TITLES.get(name, name), fontsize=10)
        axis.set_xlabel("steps")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(options.png, dpi=110)


if __name__ == "__main__":
    main()
