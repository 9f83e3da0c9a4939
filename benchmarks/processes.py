"""Does a round in two processes teach what a round in one does?

    python benchmarks/processes.py --stream DATA/corrections/drishti_fundus [--targets "optic disc,optic cup"] [--seeds 1,2]

A simulated clinician corrects images of the stream once. From that state a round is run in one process and in two (`torchrun`,
gloo), for every seed: the same corrections, replay and number of steps, and each process takes its share of the pictures of a
step, so that all see equally many. What came out is measured on the stream's val split, which no round sees. The differences are
paired by question, with intervals over patients; beside them stands what another seed alone changes, which is the noise. Exits 1
where two processes change all questions by more than another seed may, by its interval.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from learning.clinicians import Clinicians, Flaws
from learning.local import LocalSite
from learning.measuring import Score, by_target, gain, measure
from learning.results import figure, signed
from learning.simulation import without_nan
from learning.streams import Stream, read_stream

from medsegr.errors import MedSegRError
from medsegr.files import write_whole
from medsegr.predictor import Predictor
from medsegr.web.checkpoints import checkpoint_folder

REGRESSION = 5
"""Pictures that the gate asks about; its verdict is of no interest here."""


@dataclass(frozen=True)
class Trained:
    """A round: how many processes, which seed, its seconds, and what its version outlines."""

    processes: int
    seed: int
    seconds: float
    scores: list[Score]


def corrected_state(stream: Stream, checkpoint: Path, state: Path) -> None:
    """A state folder in which every image of the stream was corrected with the truth."""
    patients = {item.name: f"{stream.name}/{item.patient}" for item in stream.items}
    site = LocalSite(state, checkpoint, {}, patients)
    clinicians = Clinicians(stream.items, Flaws(), seed=1)
    for item in stream.items:
        site.correct(item, clinicians)
    site.close()


def train(
    options: argparse.Namespace, stream: Stream, checkpoint: Path, state: Path, processes: int, seed: int
) -> Trained:
    """One round in the state folder, which is used up. Raises `MedSegRError` if it gives no version."""
    chosen = {
        "steps": options.steps,
        "minutes": 0,
        "patience": 0,
        "seed": seed,
        "processes": processes,
        "device": "cpu",
        "gate": False,
        "regression_pictures": REGRESSION,
    }
    site = LocalSite(state, checkpoint, chosen, {}, seed=seed)
    try:
        ended = site.run_round()
        if ended.status != "adopted":
            raise MedSegRError(
                f"The round with {processes} processes ended as {ended.status}: {ended.sentence}"
            )
        predictor = Predictor.from_pretrained(site.in_charge()[1])
        scores = measure(predictor, stream.name, stream.measured)
        return Trained(processes, seed, ended.seconds, scores)
    finally:
        site.close()


def dice_table(before: Sequence[Score], runs: Sequence[Trained]) -> str:
    """Dice of every structure on the val split, before and after each round."""
    first = by_target(before)
    lines = [
        f"| processes | seed | seconds | {' | '.join(first)} |",
        f"| --- | --- | --- |{' --- |' * len(first)}",
        f"| before | – | – | {' | '.join(figure(v['dice']) for v in first.values())} |",
    ]
    for run in runs:
        values = by_target(run.scores)
        cells = " | ".join(figure(values[name]["dice"]) for name in first)
        lines.append(f"| {run.processes} | {run.seed} | {run.seconds:.0f} | {cells} |")
    return "\n".join(lines)


def differences(runs: Sequence[Trained]) -> dict[str, dict[str, dict[str, float]]]:
    """Comparison -> structure, and "all" -> change of Dice with its interval."""
    found = {(run.processes, run.seed): run.scores for run in runs}
    seeds = sorted({run.seed for run in runs})
    one = [score for seed in seeds for score in found[1, seed]]
    two = [score for seed in seeds for score in found[2, seed]]
    compared = {"two processes against one": gain(one, two)}
    for other in seeds[1:]:
        compared[f"one process, seed {other} against seed {seeds[0]}"] = gain(
            found[1, seeds[0]], found[1, other]
        )
    return compared


def seed_noise(compared: dict[str, dict[str, dict[str, float]]]) -> float:
    """The largest change of Dice over all questions that another seed alone may make, by its interval; NaN with one seed or too
    few patients. Who trained is compared with it, since an interval over patients knows nothing of how trainings differ."""
    others = [values["all"] for what, values in compared.items() if "seed" in what]
    return max((abs(v[end]) for v in others for end in ("low", "high")), default=float("nan"))


def difference_table(compared: dict[str, dict[str, dict[str, float]]]) -> str:
    """One line per comparison and structure."""
    lines = ["| comparison | structure | questions | change of Dice [95 %] |", "| --- | --- | --- | --- |"]
    for what, values in compared.items():
        for name, v in values.items():
            lines.append(
                f"| {what} | {name} | {v['n']} | {signed(v['change'])} [{signed(v['low'])}, {signed(v['high'])}] |"
            )
    return "\n".join(lines)


def main() -> int:
    """Run, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stream", type=Path, required=True, help="folder of a labelled set")
    parser.add_argument("--targets", default="", help="structures, with commas between; all if left out")
    parser.add_argument("--images", type=int, default=16, help="that are corrected")
    parser.add_argument("--steps", type=int, default=150, help="of training, in every round")
    parser.add_argument("--seeds", default="1,2", help="with commas between")
    parser.add_argument("--measured", type=int, default=0, help="val images that are asked about; 0: all")
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/processes.json"))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    targets = [name for name in options.targets.split(",") if name]
    print(
        f"{len(os.sched_getaffinity(0))} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')}\n"
    )
    runs: list[Trained] = []
    try:
        stream = read_stream(options.stream, options.images, 1, targets, measured=options.measured)
        checkpoint = checkpoint_folder(options.checkpoint)
        before = measure(Predictor.from_pretrained(checkpoint), stream.name, stream.measured)
        with tempfile.TemporaryDirectory(prefix="medsegr-bench-", ignore_cleanup_errors=True) as folder:
            corrected = Path(folder) / "corrected"
            corrected_state(stream, checkpoint, corrected)
            for seed in map(int, options.seeds.split(",")):
                for processes in (1, 2):
                    state = Path(folder) / f"{processes}-{seed}"
                    shutil.copytree(corrected, state)
                    runs.append(train(options, stream, checkpoint, state, processes, seed))
                    print(f"seed {seed}, {processes} processes: {runs[-1].seconds:.0f} s", flush=True)
    except MedSegRError as error:
        raise SystemExit(str(error)) from error
    compared = differences(runs)
    change, noise = compared["two processes against one"]["all"]["change"], seed_noise(compared)
    same = abs(change) <= noise
    print(f"\n{len(stream.items)} corrections, {options.steps} steps\n")
    print(f"{dice_table(before, runs)}\n\n{difference_table(compared)}\n")
    verdict = "met" if same else "MISSED" if noise == noise else "undecided, too few seeds or patients"
    print(
        f"{verdict}: two processes change all questions by {change:+.3f}, another seed by up to {noise:.3f}"
    )
    figures: dict[str, Any] = {
        "options": {name: str(value) for name, value in vars(options).items()},
        "before": [asdict(score) for score in before],
        "runs": [asdict(run) for run in runs],
        "differences": compared,
    }
    write_whole(options.out, json.dumps(without_nan(figures), indent=1))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
