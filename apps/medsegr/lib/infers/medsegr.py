"""The infer task: a question in, an answer and a label map out. The model itself runs in the service's own
process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from medsegr.web.image_files import ImageFile
from medsegr.web.requests import AskOptions, parse
from medsegr.web.service import Service


class MedSegRInfer(InferTask):
    """Reasoning segmentation. `dimension` 2 answers about a picture or one slice of a volume, 3 about all of
    it.
    """

    def __init__(self, service: Service, dimension: int, version: Callable[[], str] | None = None) -> None:
        what = "a whole volume or a picture" if dimension == 3 else "a picture or one slice of a volume"
        super().__init__(
            type=InferType.SEGMENTATION,
            labels={},
            dimension=dimension,
            description=f"Answers a question about {what} with text and masks; no question: all structures",
            config={"question": "", "slices": "all"},
        )
        self.service, self.version = service, version

    @property
    def one_slice(self) -> bool:
        """Whether a volume is answered by one slice only."""
        return self.dimension == 2

    def info(self) -> dict[str, Any]:
        """The labels (name -> fixed id) and the version of the model in charge, as they are now."""
        labels = {target: n for n, target in enumerate(self.service.targets, start=1)}
        return {**super().info(), "labels": labels, "version": self.version() if self.version else None}

    def is_valid(self) -> bool:
        """Always offered: until the model is loaded, questions wait."""
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """For batch inference and callers in this process; `request["image"]` is a path that the app has resolved,
        `request["image_file"]` the image behind it if it is known better.
        """
        options = parse(AskOptions, request)
        image, path = request.get("image_file"), Path(request["image"])
        if not isinstance(image, ImageFile):  # clients can send nothing but JSON
            image = ImageFile(path.name, path)
        outcome = self.service.ask(options, image, one_slice=self.one_slice)
        with tempfile.TemporaryDirectory(prefix="medsegr-") as folder:
            written = self.service.write_map(
                outcome, image, Path(folder), options.result_extension, fixed=False
            )
            handle, name = tempfile.mkstemp(prefix="medsegr-", suffix=written.name[len(outcome.turn_id) :])
            os.close(handle)
            written.replace(name)
        return name, outcome.params
