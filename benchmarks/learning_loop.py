"""Does it learn from corrections, and what does it forget? A simulated clinician asks, corrects and starts rounds.

    python benchmarks/learning_loop.py --fast --stream DATA/corrections/drishti_fundus --targets "optic disc,optic cup"
    python benchmarks/learning_loop.py --server URL --state DIR --stream DATA/corrections/wbc_smear
    python benchmarks/learning_loop.py --fast --shift --stream DATA/train/btcv_abdomen_ct
    python benchmarks/learning_loop.py --fast --stream DATA/corrections/wbc_smear --after OUT/states/RUN --forgetting DATA/train

`--server` talks to a running server as a viewer does (its administrator starts rounds); `--fast` uses the library in this
process with short rounds. The stream's train split is corrected, its val split measured on the version in charge, and never shown
to whoever learns. Results go to OUT: a JSON file per run, a plot of Dice against corrected images, and tables (also of all runs
in OUT together). A run whose file is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from learning.clinicians import SABOTAGE, Clinicians, Flaws
from learning.local import LocalSite
from learning.remote import ServerSite
from learning.results import Run, comparison_table, markdown, plot
from learning.simulation import Plan, run
from learning.site import Site
from learning.streams import Shift, Stream, read_stream

from medsegr.choosing.strategies import STRATEGIES
from medsegr.errors import MedSegRError
from medsegr.files import write_whole
from medsegr.rounds.version_files import remove
from medsegr.web.checkpoints import checkpoint_folder

ORDER = "order"
"""Images are corrected in the order that the seed gives them; no strategy."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fast", action="store_true", help="no server: the library in this process")
    where.add_argument("--server", metavar="URL", help="a running server on this machine")
    parser.add_argument("--state", type=Path, help="the server's state folder, to measure its versions")
    parser.add_argument("--token", default="", help="of an administrator, where the server asks for a login")
    parser.add_argument("--stream", type=Path, required=True, help="folder of a labelled set")
    parser.add_argument("--targets", default="", help="structures, with commas between; all if left out")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument(
        "--checkpoint", default="embedded", help="that learning begins with (the server's own)"
    )
    parser.add_argument(
        "--after",
        type=Path,
        metavar="STATE",
        help="go on where an earlier --fast run ended, on a copy of its state",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    work = parser.add_argument_group("what the clinician does")
    work.add_argument("--images", type=int, default=20, help="that are corrected")
    work.add_argument("--round-size", type=int, default=5, help="corrected images before each round")
    work.add_argument("--per-image", type=int, default=3, help="structures that are corrected in one image")
    work.add_argument("--pool", type=int, default=60, help="images that a strategy chooses from")
    work.add_argument(
        "--strategy", default=ORDER, help=f"{ORDER}, {', '.join(STRATEGIES)}; with commas between"
    )
    work.add_argument("--seeds", default="1", help="with commas between")
    work.add_argument("--noisy", type=float, default=0.0, help="share of corrections with unsteady outlines")
    work.add_argument("--partial", type=float, default=0.0, help="share of corrections that miss a part")
    work.add_argument(
        "--wrong", type=float, default=0.0, help="share of corrections that mark something else"
    )
    work.add_argument("--sabotage", choices=SABOTAGE, default="none")
    work.add_argument("--shift", action="store_true", help="another scanner: fixed blur, contrast and noise")
    rounds = parser.add_argument_group("rounds")
    rounds.add_argument("--round-minutes", type=float, default=0.4, help="of training in a round")
    rounds.add_argument("--no-replay", action="store_true", help="train on corrections alone")
    rounds.add_argument("--full-fine-tuning", action="store_true", help="the whole language model, no LoRA")
    rounds.add_argument("--no-gate", action="store_true", help="adopt whatever comes out")
    rounds.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="another option of a round"
    )
    seen = parser.add_argument_group("what is measured")
    seen.add_argument("--measured", type=int, default=0, help="val images of the stream (0: all)")
    seen.add_argument(
        "--forgetting", type=Path, metavar="DATA", help="folder of labelled sets, asked before and after"
    )
    seen.add_argument("--every", type=int, default=4, help="of their val images")
    options = parser.parse_args(given)
    if options.server and options.state is None:
        parser.error("--server needs --state, to measure the versions that the server makes")
    if options.after and (options.server or not options.after.is_dir()):
        parser.error("--after expects the state folder of an earlier run and is for --fast")
    if options.server and (
        options.no_replay or options.full_fine_tuning or options.no_gate or options.option
    ):
        parser.error("a server has one configuration for its rounds: this ablation is for --fast")
    if options.server and len(options.seeds.split(",")) * len(options.strategy.split(",")) > 1:
        parser.error("a server learns from one run and cannot begin anew: give one seed and one strategy")
    return options


def settings(options: argparse.Namespace) -> str:
    """What differs from the usual, in words that are also part of a file's name."""
    said = [
        name.replace("_", " ")
        for name in ("shift", "no_replay", "full_fine_tuning", "no_gate")
        if getattr(options, name)
    ]
    said += [f"{getattr(options, n):g} {n}" for n in ("noisy", "partial", "wrong") if getattr(options, n)]
    said += [f"after {options.after.name.split('--')[0]}"] if options.after else []
    said += [] if options.sabotage == "none" else [options.sabotage]
    said += [option.replace("=", " ") for option in options.option]
    return ", ".join(said) or ("server" if options.server else "usual")


def round_options(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The options of a round in this process. Raises `MedSegRError` for an `--option` that is none."""
    found: dict[str, Any] = {"minutes": options.round_minutes, "seed": seed, "device": options.device}
    if options.no_replay:
        found |= {"replay": False, "distil": False}
    if options.full_fine_tuning:
        found["full"] = True
    if options.no_gate:
        found["gate"] = False
    for text in options.option:
        name, sign, value = text.partition("=")
        if not sign:
            raise MedSegRError(f"--option {text} has no value; NAME=VALUE is expected.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def make_site(options: argparse.Namespace, stream: Stream, seed: int, state: Path) -> Site:
    """The server, or a new local site."""
    checkpoint = checkpoint_folder(options.checkpoint)
    if options.server:
        return ServerSite(options.server, options.state, checkpoint, options.round_minutes, options.token)
    if state.is_dir():  # of a run that was interrupted
        remove(state)
    if options.after:
        shutil.copytree(options.after, state)
    patients = {item.name: f"{stream.name}/{item.patient}" for item in stream.items}
    return LocalSite(state, checkpoint, round_options(options, seed), patients, options.device, seed)


def one_run(options: argparse.Namespace, strategy: str, seed: int) -> Run:
    """Run it, or read what it gave."""
    name = f"{options.stream.name}, {strategy}, {settings(options)}, seed {seed}"
    stem = "".join(c if c.isalnum() or c in "-." else "_" for c in name.replace(", ", "--").replace(" ", "-"))
    path = options.out / "runs" / f"{stem}.json"
    if path.is_file():
        found: Run = json.loads(path.read_text("utf-8"))
        return found
    print(f"== {name}", flush=True)
    stream = read_stream(
        options.stream,
        options.images if strategy == ORDER else max(options.pool, options.images),
        seed,
        tuple(name.strip() for name in options.targets.split(",") if name.strip()),
        Shift() if options.shift else None,
        options.measured,
    )
    if options.shift:
        stream = replace(stream, name=f"{stream.name} shifted")
    flaws = Flaws(options.noisy, options.partial, options.wrong)
    clinicians = Clinicians(stream.items, flaws, options.sabotage, seed, options.per_image)
    plan = Plan(
        options.images, options.round_size, strategy, seed, settings(options), options.forgetting, options.every,
        options.out, checkpoint_folder(options.checkpoint),
    )  # fmt: skip
    state = options.out / "states" / stem
    site = make_site(options, stream, seed, state)
    try:
        found = run(site, stream, clinicians, plan, lambda line: print(line, flush=True))
    finally:
        site.close()
    found["options"] = {
        k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items() if k != "token"
    }
    write_whole(path, json.dumps(found, indent=1, allow_nan=False))
    for left in state.glob("rounds/*/challenger"):
        shutil.rmtree(left, ignore_errors=True)
    return found


def main() -> None:
    """Run, print and write."""
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        for strategy in options.strategy.split(","):
            if strategy != ORDER and strategy not in STRATEGIES:
                raise MedSegRError(
                    f"There is no strategy {strategy}; known are {ORDER}, {', '.join(STRATEGIES)}."
                )
            runs = [one_run(options, strategy, int(seed)) for seed in options.seeds.split(",")]
            said = f"{runs[0]['stream']}, {strategy}, {settings(options)}"
            stem = said.replace(", ", "--").replace(" ", "-")
            plot(options.out / f"{stem}.png", said, runs)
            write_whole(options.out / f"{stem}.md", markdown(runs))
            print(markdown(runs))
        every = [
            json.loads(path.read_text("utf-8")) for path in sorted((options.out / "runs").glob("*.json"))
        ]
        write_whole(options.out / "table.md", comparison_table(every) + "\n")
        print(comparison_table(every))
    except MedSegRError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
