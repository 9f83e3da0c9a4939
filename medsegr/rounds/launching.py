"""Start the training of a round in several processes, on this machine or on several."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from medsegr.errors import MedSegRError
from medsegr.rounds.database import Database

TORCHRUN_VARIABLE = "MEDSEGR_TORCHRUN"
"""Arguments for `torchrun` in place of `--standalone`, such as `--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=gpu1:29400`. The
other machines start the same command by hand or by their scheduler, on the same state folder and database."""
DATABASE_VARIABLE = "MEDSEGR_DATABASE"


def command(
    state: Path, round_id: int, champion: Path, out: Path, processes: int, environment: Mapping[str, str]
) -> list[str]:
    """What starts `processes` of the group on each machine."""
    where = shlex.split(environment.get(TORCHRUN_VARIABLE, "")) or ["--standalone"]
    return [
        sys.executable, "-m", "torch.distributed.run", *where, f"--nproc-per-node={processes}",
        "-m", "medsegr.rounds.together", f"--state={state}", f"--round={round_id}", f"--champion={champion}",
        f"--out={out}",
    ]  # fmt: skip


def train_together(database: Database, round_id: int, champion: Path, out: Path, processes: int) -> None:
    """Train a challenger of the round in `out`; raises `MedSegRError` if that fails."""
    environment = {**os.environ, DATABASE_VARIABLE: database.url.render_as_string(hide_password=False)}
    started = command(database.folder, round_id, champion, out, processes, environment)
    if subprocess.run(started, env=environment, check=False).returncode:
        raise MedSegRError(f"Training in {processes} processes failed; the log says where.")
