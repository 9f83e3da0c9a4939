"""One of several processes that train a challenger together: started by `torchrun`, see `runner`. CPU processes talk by gloo, GPU
processes by NCCL; the first of them writes the checkpoint and the progress. All read the same data, and each takes its share of
every step.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from medsegr.model.checkpoint import read_targets
from medsegr.rounds.cases import CaseStore
from medsegr.rounds.challenger import ChallengerOptions, make_challenger
from medsegr.rounds.collect import pictures
from medsegr.rounds.database import Database
from medsegr.rounds.finetune import FinetuneOptions
from medsegr.rounds.processes import end_when_orphaned
from medsegr.rounds.rounds_log import RoundLog
from medsegr.rounds.runner import Progress, freeze, known_concepts, spelling


def shared(options: FinetuneOptions, processes: int) -> FinetuneOptions:
    """What one of so many processes takes of a step. Their gradients are averaged, so together they take the step that one
    would take alone, with as many pictures (rounded up, so that none goes without)."""
    part = {
        name: math.ceil(getattr(options, name) / processes) for name in ("images", "replay_images", "masks")
    }
    return replace(options, **part)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of one process of the group."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--state", "--champion", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--round", type=int, required=True)
    given = parser.parse_args(arguments)
    end_when_orphaned()
    database = Database(given.state, os.environ.get("MEDSEGR_DATABASE"))
    log = RoundLog(database)
    this = log.get(given.round)
    options = ChallengerOptions.from_json(this.options)
    gpu = options.device.startswith("cuda")
    dist.init_process_group("nccl" if gpu else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world))
    options = replace(options, finetune=shared(options.finetune, world))
    if gpu:
        options = replace(options, device=f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    concepts = known_concepts(database, given.champion)
    store = CaseStore(database)
    names = spelling(database, read_targets(given.champion))
    drawn = pictures(store, freeze(store, names, this.data).train, concepts)
    report = Progress(log, given.round) if rank == 0 else None
    make_challenger(
        given.champion, drawn, concepts, given.out, options, report, None, rank == 0, this.data["corrected"]
    )
    dist.barrier()
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
