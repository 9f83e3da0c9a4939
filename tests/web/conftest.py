"""A worker and a service with the fake predictor, and images for them to look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fake_predictor import TARGETS
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


def worker_for(folder: Path, **settings: float) -> ModelWorker:
    """A worker with the fake predictor and a checkpoint folder for it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"targets": list(TARGETS)}))
    return ModelWorker(WorkerSettings(str(folder), "fake_predictor:make", "cpu", **settings))


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., ModelWorker]]:
    """Builds workers of a test's own and closes them."""
    made: list[ModelWorker] = []

    def make(checkpoint: str = "checkpoint", **settings: float) -> ModelWorker:
        made.append(worker_for(tmp_path / checkpoint, **settings))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture(scope="session")
def shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelWorker]:
    """One worker for all tests that do not harm it; a process takes a second to start."""
    made = worker_for(tmp_path_factory.mktemp("shared") / "checkpoint")
    yield made
    made.close()


@pytest.fixture
def service(tmp_path: Path, shared_worker: ModelWorker) -> Iterator[Service]:
    """A service with a store of its own."""
    made = Service(shared_worker, TurnStore(tmp_path / "state"), TARGETS)
    yield made
    made.store.dispose()
