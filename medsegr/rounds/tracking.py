"""Records of rounds for TensorBoard and MLflow, in files of the state folder; nothing is sent anywhere.

    tensorboard --logdir STATE/rounds/tracking/tensorboard
    mlflow ui --backend-store-uri sqlite:///STATE/rounds/tracking/mlflow.sqlite

A record holds settings and figures: no patient, image, question or editor has a place in it. TensorBoard shows a round while
it runs, MLflow once it has ended. Records are for reading only: where they cannot be written, the round goes on without them.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from medsegr.errors import MedSegRError
from medsegr.rounds.tables import RoundStatus

TENSORBOARD, MLFLOW, ARTIFACTS = "tensorboard", "mlflow.sqlite", "artifacts"
EXPERIMENT = "rounds"
MAX_NAME = 200
WORD = re.compile(r"[\w.\-+:/]{0,100}")
NOT_RECORDED = "(text)"
"""In place of a setting that is no single word: somebody may have written about a patient there."""
AT_ONCE = 500
"""Values that MLflow takes in one go: it refuses more than a thousand."""
MLFLOW_STATUS = {RoundStatus.FAILED: "FAILED", RoundStatus.CANCELLED: "KILLED"}
NOT_IN_NAMES = re.compile(r"[^\w\-. /]", re.ASCII)

Setting = str | int | float | bool | None
logger = logging.getLogger(__name__)


class TrackingError(MedSegRError):
    """A record was used after it was finished."""


@dataclass(frozen=True)
class Point:
    """One value of a figure: `step` counts what the caller counts, `time_ms` is Unix time."""

    name: str
    value: float
    step: int
    time_ms: int


class Tracker:
    """The record of one round under `folder`, which is created when missing. `params` are settings: numbers, yes or no,
    and single words; of other text nothing is recorded.

    Not thread-safe. Raises `TrackingError` when it is used after `finish`, and nothing else.
    """

    def __init__(self, folder: Path, round_id: int, params: Mapping[str, Setting]) -> None:
        self.folder, self.round_id = folder.resolve(), round_id  # a file URI needs an absolute path
        self.name = f"round {round_id:04d}"
        self.params = {_name(key): _value(value) for key, value in params.items()}
        self._points: list[Point] = []
        self._began_ms = _now_ms()
        self._finished = False
        self._writer: SummaryWriter | None = None
        try:
            runs = folder / TENSORBOARD
            runs.mkdir(parents=True, exist_ok=True)
            self._writer = SummaryWriter(str(runs / self.name.replace(" ", "-")))
            self._writer.add_text("settings", _markdown(self.params))
        except OSError as error:
            self._give_up("TensorBoard", error)

    def metric(self, name: str, value: float, step: int) -> None:
        """Record one value of a figure, e.g. `loss` or `dice/liver`."""
        self._check_open()
        point = Point(_name(name), float(value), step, _now_ms())
        self._points.append(point)
        self._write(point)

    def finish(self, decision: str, status: RoundStatus | None = None) -> None:
        """The round ended with this sentence; the record is complete when this returns."""
        self._check_open()
        self._finished = True
        if self._writer is not None:
            try:
                self._writer.add_text("decision", decision)
                self._writer.close()
            except OSError as error:
                self._give_up("TensorBoard", error)
        try:
            self._log_to_mlflow(decision, status)
        except Exception as error:  # noqa: BLE001 - whatever a library of records stumbles over, the round is worth more
            logger.warning("MLflow has no record of round %d: %s.", self.round_id, type(error).__name__)

    def _check_open(self) -> None:
        if self._finished:
            raise TrackingError(f"The record of round {self.round_id} is finished; make another `Tracker`.")

    def _write(self, point: Point) -> None:
        if self._writer is None:
            return
        try:
            self._writer.add_scalar(point.name, point.value, point.step, point.time_ms / 1000)
        except OSError as error:
            self._give_up("TensorBoard", error)

    def _give_up(self, what: str, error: OSError) -> None:
        self._writer = None
        logger.warning("%s has no record of round %d: %s.", what, self.round_id, error.strerror)

    def _log_to_mlflow(self, decision: str, status: RoundStatus | None) -> None:
        mlflow = _quiet_mlflow()
        entities = importlib.import_module("mlflow.entities")
        client = mlflow.tracking.MlflowClient(tracking_uri=f"sqlite:///{self.folder / MLFLOW}")
        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else client.create_experiment(EXPERIMENT, artifact_location=(self.folder / ARTIFACTS).as_uri())
        )
        tags = {"round": str(self.round_id), "mlflow.note.content": decision}
        if status is not None:
            tags["status"] = status.value
        run = client.create_run(experiment_id, start_time=self._began_ms, tags=tags, run_name=self.name)
        run_id = run.info.run_id
        params = [entities.Param(key, value) for key, value in self.params.items()]
        for n in range(0, len(params), 100):
            client.log_batch(run_id, params=params[n : n + 100])
        metrics = [entities.Metric(p.name, p.value, p.time_ms, p.step) for p in self._points]
        for n in range(0, len(metrics), AT_ONCE):
            client.log_batch(run_id, metrics=metrics[n : n + AT_ONCE])
        ended = MLFLOW_STATUS.get(status, "FINISHED") if status else "FINISHED"
        client.set_terminated(run_id, status=ended)


def _quiet_mlflow() -> Any:
    """MLflow, with its reports to its makers switched off. Raises `ImportError` where it is not installed."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    loaded = "mlflow" in sys.modules
    mlflow = importlib.import_module("mlflow")
    if loaded:  # whoever imported it may have left them on
        importlib.import_module("mlflow.telemetry").set_telemetry_client()
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


def _name(text: str) -> str:
    """A name that both take: MLflow knows letters of ASCII, digits and a few signs."""
    return NOT_IN_NAMES.sub("_", text)[:MAX_NAME]


def _value(value: Setting) -> str:
    text = str(value)
    return text if WORD.fullmatch(text) else NOT_RECORDED


def _markdown(params: Mapping[str, str]) -> str:
    return "\n".join(["| setting | value |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in params.items())])


def _now_ms() -> int:
    return int(time.time() * 1000)
