"""How `torchrun` is called: on this machine alone, or as an operator says."""

from __future__ import annotations

from pathlib import Path

from torch.distributed.run import get_args_parser

from medsegr.rounds.launching import TORCHRUN_VARIABLE, command

PATHS = (Path("state"), 7, Path("champion"), Path("out"))


def _read(arguments: list[str]) -> object:
    assert arguments[1:3] == ["-m", "torch.distributed.run"]
    return get_args_parser().parse_args(arguments[3:])


def test_without_a_word_it_is_this_machine() -> None:
    found = _read(command(*PATHS, 2, {}))
    assert found.standalone and found.nproc_per_node == "2" and found.module
    assert found.training_script == "medsegr.rounds.together"
    assert found.training_script_args == ["--state=state", "--round=7", "--champion=champion", "--out=out"]


def test_an_operator_names_machines() -> None:
    said = "--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=gpu1:29400"
    found = _read(command(*PATHS, 4, {TORCHRUN_VARIABLE: said}))
    assert not found.standalone and (found.nnodes, found.nproc_per_node) == ("2", "4")
    assert (found.rdzv_backend, found.rdzv_endpoint) == ("c10d", "gpu1:29400")
