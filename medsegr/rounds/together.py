"""One of several processes that train a challenger together: started by `torchrun`, see `runner`. CPU processes talk by gloo, GPU
processes by NCCL; the first of them writes the checkpoint and the progress.
"""

from __future__ import annotations

import argparse
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
from medsegr.rounds.rounds_log import RoundLog
from medsegr.rounds.runner import Progress, freeze, known_concepts, spelling


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of one process of the group."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--state", "--champion", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--round", type=int, required=True)
    given = parser.parse_args(arguments)
    database = Database(given.state, os.environ.get("MEDSEGR_DATABASE"))
    log = RoundLog(database)
    this = log.get(given.round)
    options = ChallengerOptions.from_json(this.options)
    gpu = options.device.startswith("cuda")
    dist.init_process_group("nccl" if gpu else "gloo")
    rank = dist.get_rank()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // dist.get_world_size()))
    if gpu:
        options = replace(options, device=f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    concepts = known_concepts(database, given.champion)
    store = CaseStore(database)
    names = spelling(database, read_targets(given.champion))
    drawn = pictures(store, freeze(store, names, this.data).train, concepts)
    report = Progress(log, given.round) if rank == 0 else None
    make_challenger(given.champion, drawn, concepts, given.out, options, report, None, write=rank == 0)
    dist.barrier()
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
