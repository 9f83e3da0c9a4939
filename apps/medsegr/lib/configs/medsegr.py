"""The model `medsegr` and its names on the server."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.config import TaskConfig
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.train import TrainTask

from lib.infers.medsegr import MedSegRInfer
from lib.trainers.corrections import CorrectionsTrainer
from medsegr.web.loop import LearningLoop
from medsegr.web.service import Service


class MedSegRConfig(TaskConfig):
    """Two names for one engine, since MONAI Label fixes a model's dimension.

    `medsegr` answers about whole volumes and pictures; `medsegr_2d` about pictures, or one slice of a volume.
    """

    def init(self, name: str, model_dir: str, conf: dict[str, str], planner: Any, **kwargs: Any) -> None:
        """Labels are the service's targets: name -> position + 1."""
        super().init(name, model_dir, conf, planner, **kwargs)
        self.service: Service = kwargs["service"]
        self.loop: LearningLoop = kwargs["loop"]

    def infer(self) -> dict[str, InferTask]:
        """The tasks by REST name."""

        def version() -> str:
            return self.loop.charge.version.name

        return {
            self.name: MedSegRInfer(self.service, 3, version),
            f"{self.name}_2d": MedSegRInfer(self.service, 2, version),
        }

    def trainer(self) -> TrainTask | None:
        """Rounds of fine-tuning on corrections."""
        return CorrectionsTrainer(self.loop)
