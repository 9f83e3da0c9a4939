"""The train task: a round of the learning loop, which learns from corrections and reaches the clinic only when it is better.

Clients start and stop rounds by `/train` (`medsegr.web.training`); MONAI Label itself calls the task in a process of its own.
Either way the work is done by `python -m medsegr.rounds.runner`, which loads no server.
"""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from medsegr.web.loop import LearningLoop
from medsegr.web.training import stats


class CorrectionsTrainer(TrainTask):  # type: ignore[misc]
    """Rounds of fine-tuning on corrections, with MONAI Label's contract around them."""

    def __init__(self, loop: LearningLoop) -> None:
        super().__init__(
            "Learns from corrections; a version that is better, and worse at nothing old, takes charge"
        )
        self.loop = loop

    def config(self) -> dict[str, Any]:
        """What may be chosen for a round: minutes, device, processes, and why it is started."""
        policy = self.loop.policy
        return {
            "max_minutes": policy.max_minutes,
            "device": policy.device,
            "processes": policy.processes,
            "reason": "",
        }

    def stats(self) -> dict[str, Any]:
        """Of the round that runs, else of the newest one; see `medsegr.web.training.stats`."""
        running = self.loop.log.open_round()
        newest = [running] if running else self.loop.log.rounds(1)
        return stats(newest[-1] if newest else None)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Run a round to its end and return its stats; raises `Refusal` 429 while another one is open."""
        editor = str(request.get("client_id") or "server")
        round_ = self.loop.start_round(editor, request)
        return stats(self.loop.starter.wait(round_.id))
