"""The model `medsegr` and its names on the server."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.config import TaskConfig
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.train import TrainTask

from lib.infers.medsegr import MedSegRInfer
from medsegr.web.service import Service


class MedSegRConfig(TaskConfig):
    """Two names for one engine, since MONAI Label fixes a model's dimension.

    `medsegr` answers about whole volumes and pictures; `medsegr_2d` about pictures, or one slice of a volume.
    """

    def init(self, name: str, model_dir: str, conf: dict[str, str], planner: Any, **kwargs: Any) -> None:
        """Labels are the checkpoint's targets: name -> position + 1."""
        super().init(name, model_dir, conf, planner, **kwargs)
        self.service: Service = kwargs["service"]
        self.labels = {target: n for n, target in enumerate(self.service.targets, start=1)}

    def infer(self) -> dict[str, InferTask]:
        """The tasks by REST name."""
        return {
            self.name: MedSegRInfer(self.service, self.labels, dimension=3),
            f"{self.name}_2d": MedSegRInfer(self.service, self.labels, dimension=2),
        }

    def trainer(self) -> TrainTask | None:
        """None yet: corrections and rounds are not there."""
        return None
