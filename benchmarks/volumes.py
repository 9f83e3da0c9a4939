"""Whole volumes against single slices: 3-D Dice of `ask_volume`, and mean 2-D Dice of `ask` on the same slices.

    python benchmarks/volumes.py --data DATA/volumes [--sets acdc_cardiac_mr msd_hippocampus_mr] [--checkpoint DIR] [--every 3]

DATA/volumes/SET holds dataset.json, images/*.nii.gz and masks/*.nii.gz. Every structure of a volume is asked for by name, once
for the stack and once for each slice that shows it. A mask that is not on the volume's own grid ends the run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from medsegr import Predictor
from medsegr.evaluation.overlap import Mask, dice
from medsegr.imaging import Picture, Volume, read_image
from medsegr.reply import Finding

MIN_PIXELS = 12
"""A slice shows a structure from so many pixels on, as in the question builder."""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["acdc_cardiac_mr", "msd_hippocampus_mr"])
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    predictor = Predictor.from_pretrained(options.checkpoint)
    table = Table("set", "structure", "volumes", "3-D Dice", "slices", "2-D Dice", "difference")
    for name in options.sets:
        source = json.loads((options.data / name / "dataset.json").read_text(encoding="utf-8"))
        files = sorted((options.data / name / "images").glob("*.nii.gz"))[:: options.every]
        scores: dict[str, list[tuple[float, list[float]]]] = {}
        for file in files:
            for target, whole, planes in score_volume(predictor, file, source["modality"], source["targets"]):
                scores.setdefault(target, []).append((whole, planes))
        for target, rows in scores.items():
            whole = float(np.mean([w for w, _ in rows]))
            flat = float(np.mean([np.mean(planes) for _, planes in rows]))
            count = sum(len(planes) for _, planes in rows)
            table.add_row(
                name,
                target,
                str(len(rows)),
                f"{whole:.3f}",
                str(count),
                f"{flat:.3f}",
                f"{whole - flat:+.3f}",
            )
    Console(width=110).print(table)


def score_volume(
    predictor: Predictor, file: Path, modality: str, targets: Mapping[str, Sequence[int]]
) -> list[tuple[str, float, list[float]]]:
    """For every structure that the volume shows: its name, the 3-D Dice, and the 2-D Dice of the slices that show it."""
    volume = read_image(file, modality)
    assert isinstance(volume, Volume), f"{file.name} is no volume"
    labels = np.asarray(nib.load(file.parents[1] / "masks" / file.name).dataobj).astype(np.int64)  # type: ignore[attr-defined]
    found = []
    for target, values in targets.items():
        truth: NDArray[np.bool_] = np.isin(labels, values)
        shown = [k for k in range(volume.n_slices) if volume.slice_from_volume(k, truth).sum() >= MIN_PIXELS]
        if not shown or target not in predictor.targets:
            continue
        question = f"Outline the {target}."
        mask = union(predictor.ask_volume(volume, question).findings, truth.shape)
        planes = []
        for k in shown:
            picture = Picture(volume.slice_pixels(k), modality, volume.slice_spacing_mm, volume.body_part)
            predictor.set_image(picture)
            plane = np.asarray(volume.slice_from_volume(k, truth), dtype=bool)
            planes.append(dice(union(predictor.ask(question).findings, plane.shape), plane))
        found.append((target, dice(mask, truth), planes))
    return found


def union(findings: Sequence[Finding], shape: tuple[int, ...]) -> Mask:
    """All findings' masks in one, on the grid `shape`; raises `ValueError` if one is on another."""
    whole: Mask = np.zeros(shape, dtype=bool)
    for finding in findings:
        if finding.mask.shape != shape:
            raise ValueError(f"A mask of shape {finding.mask.shape} is not on the grid {shape}.")
        whole |= finding.mask
    return whole


if __name__ == "__main__":
    main()
