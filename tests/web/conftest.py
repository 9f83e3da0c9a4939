"""A worker and a service with the fake predictor, and images for them to look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import TARGETS
from PIL import Image

from medsegr.rounds.store import TurnStore
from medsegr.web.process import WorkerSettings
from medsegr.web.service import Service
from medsegr.web.worker import ModelWorker

AFFINE = np.diag([-0.5, -0.5, 3.0, 1.0])


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A picture [20, 30] and a volume [16, 18, 7]."""
    folder = tmp_path / "studies"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (20, 30), np.uint8)).save(folder / "pic.png")
    volume = rng.normal(size=(16, 18, 7)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, AFFINE), folder / "vol.nii.gz")
    return folder


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., ModelWorker]]:
    """Builds workers with the fake predictor and closes them."""
    made: list[ModelWorker] = []

    def make(checkpoint: str = "", **settings: float) -> ModelWorker:
        folder = tmp_path / (checkpoint or "checkpoint")
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"targets": list(TARGETS)}))
        made.append(ModelWorker(WorkerSettings(str(folder), "fakes:make", "cpu", **settings)))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def service(tmp_path: Path, make_worker: Callable[..., ModelWorker]) -> Iterator[Service]:
    """A service over the fake predictor."""
    made = Service(make_worker(), TurnStore(tmp_path / "state"), TARGETS)
    yield made
    made.close()
