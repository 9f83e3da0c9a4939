"""Training as MONAI Label, OHIF and Slicer see it: a round behind `/train`, and the version that it puts in charge."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import ROOT, Server, start, wait_until_ready

from medsegr.rounds.policy import Policy
from medsegr.rounds.registry import Registry
from medsegr.rounds.rounds_log import RoundStatus
from medsegr.rounds.starting import RoundStarter
from medsegr.rounds.store import TurnStore
from medsegr.web.errors import Refusal
from medsegr.web.loop import LearningLoop
from medsegr.web.process import WorkerSettings
from medsegr.web.service import Service
from medsegr.web.worker import ModelWorker

WEB = ROOT / "tests" / "web"


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The app's train task over a state folder of its own; its worker is never started, as in MONAI Label's train process."""
    monkeypatch.syspath_prepend(str(ROOT / "apps" / "medsegr"))
    monkeypatch.syspath_prepend(str(WEB))
    base = importlib.import_module("version_folders").write_version(tmp_path / "base", "base-1")
    store = TurnStore(tmp_path / "state")
    registry = Registry(store.database, base)
    worker = ModelWorker(WorkerSettings(str(base), "nothing:here", "cpu"))
    service = Service(worker, store, registry.base.targets)
    starter = RoundStarter(store.database, base, runner=(sys.executable, str(WEB / "round_runner.py")))
    loop = LearningLoop(service, registry, base, Policy(max_minutes=3, device="cpu"), starter=starter)
    yield importlib.import_module("lib.trainers.corrections").CorrectionsTrainer(loop)
    assert worker.pid is None
    loop.close()
    service.close()


def ohif_percent(stats: dict[str, Any]) -> int:
    """`ActiveLearning.tsx` of the stock extension."""
    epochs = 0 if stats.get("total_time") else stats.get("epoch") or 1
    return round(100 * epochs / (stats.get("total_epochs") or 1))


def slicer_percent(stats: dict[str, Any]) -> float:
    """`monitorTraining` of the stock module, while a task runs."""
    current = 0 if stats.get("total_time") else stats.get("epoch", 1)
    return max(1, 100 * current / stats.get("total_epochs", 1))


def test_what_clients_may_choose_and_what_they_draw_before_any_round(trainer: Any) -> None:
    info = trainer.info()
    assert info["config"] == {"max_minutes": 3, "device": "cpu", "processes": 1, "reason": ""}
    stats = trainer.stats()
    assert ohif_percent(stats) == 0 and stats["best_metric"] == 0


def test_a_running_round_shows_its_progress(trainer: Any) -> None:
    log = trainer.loop.log
    round_ = log.create("hand", "anna", {})
    assert ohif_percent(trainer.stats()) == 1 and trainer.stats()["status"] == "queued"
    log.start(round_.id)
    log.progress(round_.id, "training", 30, 120)
    stats = trainer.stats()
    assert ohif_percent(stats) == 25 == slicer_percent(stats)
    assert stats["phase"] == "training" and "total_time" not in stats
    with pytest.raises(Refusal) as caught:
        trainer({"model": "medsegr"}, None)
    assert caught.value.status == 429
    log.finish(round_.id, RoundStatus.REFUSED, {"sentence": "No.", "numbers": {"corrected_after": None}})
    assert ohif_percent(trainer.stats()) == 0 and trainer.stats()["best_metric"] == 0


def test_called_by_monai_label_it_runs_a_round_to_its_end(trainer: Any) -> None:
    request = {
        "model": "medsegr",
        "client_id": "anna",
        "reason": "adopt optic disc",
        "gpus": "all",
        "local_rank": 0,
    }
    stats = trainer(request, None)
    assert (
        stats["status"] == "adopted" and stats["best_metric"] == 0.875 and stats["total_time"].count(":") == 2
    )
    assert trainer.loop.registry.current().number == 1
    assert trainer.loop.log.get(1).editor == "anna"


@pytest.fixture
def teaching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of its own: a round changes what it says to everybody."""
    monkeypatch.setenv("MEDSEGR_ROUND_RUNNER", "round_runner")
    made = start(tmp_path, conf={"train_device": "cpu", "train_minutes": "5"})
    try:
        wait_until_ready(made, 300)
        yield made
    finally:
        made.stop()


def until(server: Server, path: str, right: Any, seconds: float = 200) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = server.get(path).json()
        if right(found):
            return found
        time.sleep(0.5)
    raise AssertionError(server.logs()[-4000:])


@pytest.mark.server
@pytest.mark.slow
def test_from_train_to_a_version_that_answers_and_back_and_over_a_restart(teaching: Server) -> None:
    if not teaching.fake:
        pytest.skip("needs the fake predictor")
    assert teaching.get("/train/?check_if_running=true").status_code == 404
    before = teaching.get("/model/info/medsegr").json()["version"]
    assert teaching.info["trainers"]["medsegr"]["config"]["max_minutes"] == 5.0
    begun = teaching.post("/train/medsegr", json={"reason": "adopt optic disc", "client_id": "anna"})
    assert begun.status_code == 200 and begun.json()["status"] in ("SUBMITTED", "RUNNING")
    info = until(teaching, "/info/", lambda found: "optic disc" in found["labels"])
    assert info["labels"].index("optic disc") == 4 and info["train_stats"]["medsegr"]["best_metric"] == 0.875
    model = info["models"]["medsegr"]
    assert model["labels"]["optic disc"] == 5 and model["version"] != before
    assert teaching.get("/model/info/medsegr").json()["version"] == model["version"]
    assert teaching.get("/medsegr/models").json()["current"] == model["version"]
    reply = teaching.infer("medsegr?image=pic&output=json", {"question": "Show the optic disc"}).json()
    assert reply["model_version"] == model["version"] and reply["label_names"] == {"optic disc": 1}
    teaching.restart()
    assert teaching.info["models"]["medsegr"]["version"] == model["version"]
    back = teaching.post("/medsegr/models/rollback", json={"reason": "a test"})
    assert back.json()["current"] == before
    assert teaching.get("/model/info/medsegr").json()["version"] == before
    assert teaching.get("/medsegr/learning").json()["version"] == before
