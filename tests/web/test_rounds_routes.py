"""Rounds and versions over HTTP: started, watched, cancelled; put in charge and taken back without a restart."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from version_folders import write_version

from medsegr.errors import CheckpointError
from medsegr.rounds.audit import Audit
from medsegr.rounds.corrections import CorrectionStore, NewCorrection, NewFinding, Origin, Verdict
from medsegr.rounds.policy import Policy, PolicyError
from medsegr.rounds.registry import ChargeChanged, Registry
from medsegr.rounds.rounds_log import STOPPED, RoundLog, RoundStatus
from medsegr.rounds.starting import RoundStarter
from medsegr.rounds.store import TurnStore
from medsegr.web.charge import NOTHING_BEFORE
from medsegr.web.errors import Refusal
from medsegr.web.image_files import ImageFile
from medsegr.web.login.identity import SCOPE_KEY, User
from medsegr.web.loop import MAX_REASON, LearningLoop, policy_of
from medsegr.web.process import ModelInfo, WorkerSettings, WorkerState
from medsegr.web.requests import AskOptions
from medsegr.web.rounds import rounds_router
from medsegr.web.service import Service
from medsegr.web.training import train_router
from medsegr.web.worker import ModelWorker

RUNNER = (sys.executable, str(Path(__file__).with_name("round_runner.py")))
ANNA = User("anna")


class StandIn:
    """A worker without processes. A checkpoint with "broken" in its targets does not load."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = str(checkpoint)
        self.failure: tuple[str, str] | None = None
        self.info = ModelInfo("x", "CC0", ())
        self.loaded: list[str] = []
        self.discarded: list[str] = []
        self.held: str | None = None
        self.dies = 0
        self.state = WorkerState.READY
        self.warmed = 0
        self.slow: dict[str, tuple[threading.Event, threading.Event]] = {}  # begun, may end; by checkpoint

    def prepare(self, checkpoint: str) -> str:
        if self.dies:
            self.dies -= 1
            raise Refusal(503, "The process died.")
        if checkpoint in self.slow:
            begun, may_end = self.slow[checkpoint]
            begun.set()
            assert may_end.wait(60)
        if "broken" in (Path(checkpoint) / "config.json").read_text():
            raise CheckpointError("The weights do not fit.")
        self.loaded.append(checkpoint)
        return checkpoint

    def swap(self, model: str) -> None:
        self.checkpoint = model

    def switch(self, checkpoint: str) -> None:
        self.swap(self.prepare(checkpoint))

    def discard(self, model: str) -> None:
        self.discarded.append(model)

    def hold(self, checkpoint: str | None) -> None:
        self.held = checkpoint

    def warm(self) -> None:
        self.warmed += 1
        raise Refusal(503, "The process died.")


class Built:
    """A learning loop with everything around it."""

    def __init__(self, folder: Path, worker: Any = None, **more: Any) -> None:
        self.base = write_version(folder / "base", "base-1")
        self.store = TurnStore(folder / "state")
        database = self.store.database
        registry = Registry(database, self.base)
        self.worker = worker(self.base) if worker else StandIn(self.base)
        self.service = Service(self.worker, self.store, registry.base.targets)
        starter = RoundStarter(database, self.base, runner=RUNNER)
        self.loop = LearningLoop(self.service, registry, self.base, starter=starter, **more)
        app = FastAPI()
        app.include_router(rounds_router(self.loop))
        app.include_router(train_router(self.loop))

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            await app(scope | ({SCOPE_KEY: self.user} if self.user else {}), receive, send)

        self.user: User | None = None
        self.client = TestClient(guarded)

    @property
    def registry(self) -> Registry:
        return self.loop.registry

    def register(self, name: str, *targets: str) -> str:
        """The name of a new version."""
        work = write_version(
            self.store.folder / f"work-{name}", "draft", (*self.registry.base.targets, *targets)
        )
        (work / "grounding.safetensors").write_text(name)
        return self.registry.register(work, self.registry.current().name, None).name

    def wait(self, number: int, seconds: float = 120) -> RoundStatus:
        """Until a round has ended, and its process was looked after."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.loop.starter.reap()
            found = self.loop.log.get(number)
            if not found.open and not self.loop.starter._children:
                return found.status
            time.sleep(0.1)
        raise AssertionError((self.loop.starter.printed(number)).read_text())

    def correct(self) -> None:
        finding = NewFinding(None, "liver", b"\x80", 1)
        new = NewCorrection("pic", "anna", Verdict.EDITED, Origin.PANEL, (finding,), (2, 2), {})
        CorrectionStore(self.store.database).add(new)


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., Built]]:
    made: list[Built] = []

    def one(*args: Any, **more: Any) -> Built:
        made.append(Built(tmp_path / f"server{len(made)}", *args, **more))
        return made[-1]

    yield one
    for built in made:
        built.loop.close()
        built.store.dispose()


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("It did not happen in time.")


def test_corrections_without_a_case_are_counted(build: Callable[..., Built]) -> None:
    server = build()
    assert server.client.get("/medsegr/learning").json()["without_case"] == 0
    server.correct()
    assert server.client.get("/medsegr/learning").json()["without_case"] == 1


def test_without_rounds(build: Callable[..., Built]) -> None:
    client = build().client
    assert client.get("/medsegr/rounds").json() == []
    state = client.get("/medsegr/learning").json()
    assert state["version"] == "base-1" and state["running"] is None and state["can_rollback"] is False
    assert state["last"] is None and state["missing"] is None and state["corrections_since"] == 0
    models = client.get("/medsegr/models").json()
    assert models["current"] == models["answering"] == "base-1" and len(models["versions"]) == 1
    for method, path, status in (
        ("GET", "/medsegr/rounds/7", 404),
        ("GET", "/medsegr/rounds/7/page", 404),
        ("GET", f"/medsegr/rounds/{10**20}", 404),
        ("GET", f"/medsegr/rounds/-{10**20}/page", 404),
        ("DELETE", f"/medsegr/rounds/{10**20}", 404),
        ("DELETE", "/medsegr/rounds/7", 404),
        ("POST", "/medsegr/models/nobody/promote", 404),
        ("POST", "/medsegr/models/rollback", 409),
        ("GET", "/medsegr/rounds?limit=0", 422),
        ("GET", "/train/", 404),
        ("GET", "/train/?check_if_running=true", 404),
        ("POST", "/train/other", 404),
    ):
        reply = client.request(method, path)
        assert reply.status_code == status and set(reply.json()) == {"detail"}, path
    assert client.delete("/train/").json() is None


def test_a_round_that_runs_is_seen_refuses_another_and_can_be_cancelled(build: Callable[..., Built]) -> None:
    built = build()
    built.user = ANNA
    client = built.client
    begun = client.post("/medsegr/rounds", json={"reason": "slow", "max_minutes": 5, "device": "cpu"})
    assert begun.status_code == 201
    number = begun.json()["id"]
    until(
        lambda: (
            built.loop.log.get(number).status is RoundStatus.RUNNING and built.loop.log.get(number).progress
        )
    )
    state = client.get("/medsegr/learning").json()
    assert state["running"]["progress"] | {"seconds": 0} == {
        "phase": "training",
        "done": 1,
        "total": 4,
        "seconds": 0,
    }
    assert client.get("/train/?check_if_running=true").json()["status"] == "RUNNING"
    for path in ("/medsegr/rounds", "/train/medsegr", "/train/", "/train/medsegr?enqueue=true"):
        refused = client.post(path, json={})
        assert refused.status_code == 429 and "cancel it first" in refused.json()["detail"], path
    child = until(lambda: built.store.database.paths.rounds / "1" / "child.txt").read_text
    pids = [int(until(child)), built.loop.starter._children[number].pid]
    assert all(psutil.pid_exists(pid) for pid in pids)
    stopped = client.delete("/train/").json()
    assert (
        stopped["status"] == "STOPPED" and stopped["details"] == ["Cancelled by anna."] and stopped["end_ts"]
    )
    assert not any(psutil.pid_exists(pid) for pid in pids)
    found = client.get(f"/medsegr/rounds/{number}").json()
    assert (found["status"], found["editor"], found["data"]) == ("cancelled", "anna", None)
    assert found["options"] == {"max_minutes": 5.0, "device": "cpu", "processes": 1, "reason": "slow"}
    again = client.delete(f"/medsegr/rounds/{number}")
    assert again.status_code == 409 and client.get("/train/").json()["status"] == "STOPPED"


def test_a_round_whose_process_dies_has_failed_and_one_that_is_refused_says_why(
    build: Callable[..., Built],
) -> None:
    built = build()
    client = built.client
    number = client.post("/train/medsegr", json={"reason": "die", "client_id": "x", "device": "cpu"}).json()[
        "id"
    ]
    assert built.wait(int(number)) is RoundStatus.FAILED
    assert client.get("/train/").json()["status"] == "ERROR"
    assert (
        client.get("/medsegr/learning").json()["last"]["sentence"] == "The round's process ended with code 3."
    )
    number = client.post("/train/", json={"medsegr": {"reason": "", "device": "cpu"}}).json()["medsegr"][
        "result"
    ]["id"]
    assert built.wait(int(number)) is RoundStatus.REFUSED
    state = client.get("/medsegr/learning").json()
    assert state["last"]["status"] == "refused" and state["last"]["sentence"].startswith(
        "Not adopted, because"
    )
    assert built.registry.current().name == "base-1"
    assert client.get("/train/?all=true").json()[-1]["status"] == "DONE"
    assert client.get(f"/medsegr/rounds/{number}/page").status_code == 404


def test_a_round_whose_process_cannot_be_started_is_no_matter_of_patience(
    build: Callable[..., Built],
) -> None:
    built = build()
    built.loop.starter._runner = ("/nowhere/python",)
    reply = built.client.post("/medsegr/rounds", json={"device": "cpu"})
    assert reply.status_code == 503 and "cannot be started" in reply.json()["detail"]
    assert built.loop.log.get(1).status is RoundStatus.FAILED


def test_a_large_preset_is_not_trained_and_says_so(build: Callable[..., Built]) -> None:
    built = build(policy=Policy(after_corrections=1))
    config = built.base / "config.json"
    config.chmod(0o644)
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "format": "large-1"}), "utf-8")
    loop = LearningLoop(
        built.service,
        Registry(built.store.database, built.base),
        built.base,
        policy=Policy(after_corrections=1),
    )
    built.correct()
    with pytest.raises(Refusal, match="large preset") as refused:
        loop.start_round("anna", {})
    assert refused.value.status == 409
    assert loop.check_policy() is None and loop.log.rounds() == []


def test_options_of_a_round_are_checked(build: Callable[..., Built]) -> None:
    built = build(policy=Policy(max_minutes=7, processes=2))
    for body, word in (
        ({"max_minutes": 0}, "`max_minutes`"),
        ({"device": "tpu"}, "`device`"),
        ({"processes": 100}, "`processes`"),
        ({"reason": "x" * 501}, "`reason`"),
        ({"steps": 1}, "`steps`"),
    ):
        reply = built.client.post("/medsegr/rounds", json=body)
        assert reply.status_code == 422 and word in reply.json()["detail"], body
    assert built.loop.log.rounds() == []
    options = built.loop.options({"device": "cpu"})
    assert options == {"max_minutes": 7.0, "device": "cpu", "processes": 2, "reason": ""}
    assert built.loop.options({})["device"] in (
        "cpu",
        "cuda",
    )  # never "auto": the round's process is told one


def test_the_servers_options_become_a_policy() -> None:
    conf = {"train_after": "5", "train_night": "02:00-05:00", "train_minutes": "12", "device": "cpu"}
    assert policy_of(conf) == Policy(5, "02:00-05:00", 12.0, "cpu", 1)
    with pytest.raises(PolicyError, match="`train_after`"):
        policy_of({"train_after": "often"})


def test_promote_and_roll_back_are_recorded_and_change_labels(build: Callable[..., Built]) -> None:
    built = build()
    built.user, client = User("root", admin=True), built.client
    one = built.register("one", "optic disc")
    assert "optic disc" not in built.service.targets
    reply = client.post(f"/medsegr/models/{one}/promote", json={"reason": "seen by the board"})
    assert reply.status_code == 200 and reply.json()["current"] == one
    assert built.worker.checkpoint == str(built.registry.get(one).directory)
    assert built.worker.held == str(built.base)
    assert built.service.targets == ("liver", "gallbladder", "spleen", "kidney", "optic disc")
    assert client.get("/medsegr/learning").json()["previous"] == "base-1"
    assert client.get("/medsegr/learning").json()["can_rollback"] is True
    back = client.post("/medsegr/models/rollback", json={"reason": "worse"})
    assert back.json()["current"] == "base-1" == built.loop.charge.version.name
    charges = client.get("/medsegr/models").json()["charges"]
    assert [(c["version"], c["action"], c["editor"], c["reason"]) for c in charges] == [
        (one, "promote", "root", "seen by the board"),
        ("base-1", "rollback", "root", "worse"),
    ]
    assert built.service.targets[-1] == "optic disc"  # an id that was shown stays
    # A second structure gets the next id, whatever the model's own order is.
    built.loop.labels.add("optic cup", {}, "anna")
    two = built.register("two", "optic cup", "optic disc")
    client.post(f"/medsegr/models/{two}/promote")
    assert built.service.targets[4:] == ("optic disc", "optic cup")
    assert Audit(built.store.database).verify() is None


@pytest.mark.parametrize("then", ["rolled back", "left", "another"])
def test_a_rollback_does_not_wait_for_the_adopted_version_to_load(
    build: Callable[..., Built], then: str
) -> None:
    built = build()
    one, two = built.register("one"), built.register("two")
    directory = str(built.registry.get(one).directory)
    begun, may_end = built.worker.slow[directory] = (threading.Event(), threading.Event())
    built.registry.promote(one, "round", "better")
    following = threading.Thread(target=built.loop.charge.follow)
    following.start()
    try:
        assert begun.wait(60)
        if then == "rolled back":
            began = time.monotonic()
            reply = built.client.post("/medsegr/models/rollback")
            assert (reply.status_code, reply.json()["current"]) == (200, "base-1")
            assert time.monotonic() - began < 5 and following.is_alive()
        if then == "another":
            built.registry.promote(two, "command line", "")
    finally:
        may_end.set()
        following.join(60)
    if then == "left":
        assert built.worker.checkpoint == directory and built.worker.discarded == []
        return
    assert built.worker.checkpoint == str(built.base) and built.worker.discarded == [directory]
    built.loop.charge.follow()
    assert built.loop.charge.version.name == {"rolled back": "base-1", "another": two}[then]
    assert built.loop.charge.version.name == built.registry.current().name


def test_a_rollback_loads_what_answers_where_its_process_has_ended(build: Callable[..., Built]) -> None:
    built = build()
    built.registry.promote(built.register("one"), "round", "better")
    built.worker.state = WorkerState.STOPPED
    assert built.client.post("/medsegr/models/rollback").status_code == 200
    assert built.worker.loaded == [str(built.base)]


@pytest.mark.parametrize("left", [0, 1])
def test_a_rollback_that_another_change_overtakes_is_a_conflict(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """While the version was loaded, the command line went back itself: to the base, or (1) not so far."""
    built = build()
    one, two = built.register("one"), built.register("two")
    for name in (one, two)[: left + 1]:
        assert built.client.post(f"/medsegr/models/{name}/promote").status_code == 200
    real = built.worker.prepare

    def overtaken(checkpoint: str) -> str:
        built.registry.rollback("command line", "")
        return real(checkpoint)

    monkeypatch.setattr(built.worker, "prepare", overtaken)
    reply = built.client.post("/medsegr/models/rollback")
    assert reply.status_code == 409 and "before" in reply.json()["detail"]
    assert len(built.worker.discarded) == 1
    with pytest.raises(ChargeChanged):
        built.registry.rollback("anna", "", expected="nobody")


def test_what_cannot_be_held_ready_is_not_tried_all_the_time(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build()
    for name in ("one", "two"):
        built.client.post(f"/medsegr/models/{built.register(name)}/promote")
        for _ in range(3):
            built.loop.charge.warm()
    assert built.worker.warmed == 2  # once for each version before
    monkeypatch.setattr("medsegr.web.charge.RETRY_S", 0.0)
    built.loop.charge._not_held = built.loop.charge._not_held.again(built.registry.previous().name)  # type: ignore[union-attr]
    built.loop.charge.warm()
    assert built.worker.warmed == 3


def test_who_is_no_administrator_asks_for_a_rollback_and_administrators_see_it(
    build: Callable[..., Built],
) -> None:
    built, chief = build(), User("root", admin=True)
    client = built.client

    def ask(user: User, **body: Any) -> Any:
        built.user = user
        return client.post("/medsegr/rollback-requests", json=body)

    def shown(user: User) -> list[tuple[str, str, str]]:
        built.user = user
        state = client.get("/medsegr/learning").json()
        assert state["administrator"] is user.admin
        return [(one["editor"], one["version"], one["reason"]) for one in state["rollback_requests"]]

    refused = ask(ANNA, reason="worse")
    assert (refused.status_code, refused.json()["detail"]) == (409, NOTHING_BEFORE)
    built.user = chief
    one = built.register("one")
    client.post(f"/medsegr/models/{one}/promote")
    for reason in ("", "  ", "x" * (MAX_REASON + 1)):
        assert ask(ANNA, reason=reason).status_code == 422
    assert shown(chief) == []
    reply = ask(ANNA, reason=" worse ")
    assert reply.status_code == 201 and reply.json()["version"] == one
    ask(User("bob"), reason="me too")
    ask(ANNA, reason="x" * MAX_REASON)
    assert shown(chief) == [("bob", one, "me too"), ("anna", one, "x" * MAX_REASON)]
    assert shown(ANNA) == [("anna", one, "x" * MAX_REASON)] and shown(User("carl")) == []
    assert built.registry.current().name == one  # asking changes nothing
    entry = Audit(built.store.database).entries()[-1]
    assert (entry.editor, entry.action, entry.subject) == ("anna", "rollback_request", one)
    built.user = chief
    assert client.post("/medsegr/models/rollback", json={"reason": "as asked"}).json()["current"] == "base-1"
    assert shown(chief) == []  # answered
    assert Audit(built.store.database).verify() is None


def test_the_panels_reason_is_as_long_as_the_servers() -> None:
    view = Path(__file__).parents[2] / "plugins" / "ohif" / "src" / "views" / "learning.js"
    assert f"const MAX_REASON = {MAX_REASON};" in view.read_text(encoding="utf-8")


def test_a_version_that_does_not_load_changes_nothing(build: Callable[..., Built]) -> None:
    built = build()
    bad = built.register("bad", "broken")
    reply = built.client.post(f"/medsegr/models/{bad}/promote")
    assert reply.status_code == 503 and reply.json()["detail"] == "The weights do not fit."
    assert built.registry.charges() == [] and built.worker.checkpoint == str(built.base)
    good = built.register("good")
    path = built.registry.get(good).directory / "grounding.safetensors"
    path.chmod(0o644)
    path.write_text("oops")
    reply = built.client.post(f"/medsegr/models/{good}/promote")
    assert reply.status_code == 409 and "damaged" in reply.json()["detail"]


def test_what_another_process_put_in_charge_is_followed_or_given_up(build: Callable[..., Built]) -> None:
    built = build()
    one = built.register("one", "optic disc")
    built.registry.promote(one, "round", "better")
    built.loop.charge.follow()
    assert built.worker.checkpoint == str(built.registry.get(one).directory)
    assert built.service.targets[-1] == "optic disc"
    bad = built.register("bad", "broken")
    built.registry.promote(bad, "round", "better still")
    built.loop.charge.follow()
    assert built.registry.current().name == one == built.loop.charge.version.name
    assert built.registry.charges()[-1].action == "fallback"
    # One that loaded once and does not any more, after its process died.
    built.worker.failure = ("CheckpointError", "The weights do not fit.")
    built.loop.charge.follow()
    assert built.registry.current().name == "base-1"


def test_a_process_that_is_killed_while_it_loads_does_not_unseat_its_version(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsegr.web.charge.RETRY_S", 0.0)
    built = build()
    one = built.register("one")
    built.registry.promote(one, "round", "better")
    built.worker.dies = 2
    for _ in range(2):
        built.loop.charge.follow()
        assert built.registry.current().name == one and built.loop.charge.version.name == "base-1"
    built.loop.charge.follow()
    assert built.loop.charge.version.name == one
    two = built.register("two")
    built.registry.promote(two, "round", "better still")
    built.worker.dies = 3
    for _ in range(3):
        built.loop.charge.follow()
    assert built.registry.current().name == one


def test_a_promotion_that_cannot_be_stored_gives_the_process_back(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build()
    one = built.register("one")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(built.registry, "promote", full)
    with pytest.raises(OSError):
        built.loop.charge.promote(one, "anna", "")
    assert built.worker.discarded == [str(built.registry.get(one).directory)]
    assert built.worker.checkpoint == str(built.base)


def test_the_policy_starts_a_round_once(build: Callable[..., Built]) -> None:
    built = build(policy=Policy(after_corrections=2, device="cpu"), clock=lambda: datetime(2026, 1, 1, 12))
    built.correct()
    assert built.loop.check_policy() is None
    built.correct()
    begun = built.loop.check_policy()
    assert begun is not None and begun.trigger == "policy" and begun.editor == "server"
    assert "2 corrections" in begun.options["reason"]
    assert built.loop.check_policy() is None  # one is open
    assert built.wait(begun.id) is RoundStatus.REFUSED
    assert built.loop.check_policy() is None  # the corrections were used
    assert built.client.get("/medsegr/learning").json()["corrections_since"] == 0
    built.correct()
    assert built.client.get("/medsegr/learning").json()["corrections_since"] == 1


def test_an_interrupted_round_goes_on_with_the_next_server(build: Callable[..., Built]) -> None:
    built = build()
    log: RoundLog = built.loop.log
    queued = log.create("hand", "anna", {"reason": "", "max_minutes": 1})
    log.start(queued.id)
    log.finish(queued.id, RoundStatus.FAILED, error=STOPPED)
    assert built.loop.starter.resume() is not None
    assert built.wait(queued.id) is RoundStatus.REFUSED
    assert built.loop.starter.resume() is None


def test_a_round_that_takes_too_long_is_ended(build: Callable[..., Built]) -> None:
    built = build()
    begun = built.loop.start_round("anna", {"reason": "slow", "max_minutes": 0.01, "device": "cpu"})
    assert built.wait(begun.id) is RoundStatus.FAILED
    assert "longer than 0.01 minutes" in str(built.loop.log.get(begun.id).error)


def test_from_a_round_to_an_answer_and_back_with_a_real_process(
    build: Callable[..., Built], studies: Path
) -> None:
    built = build(lambda base: ModelWorker(WorkerSettings(str(base), "fake_predictor:make", "cpu")))
    picture, client = ImageFile("pic", studies / "pic.png"), built.client
    try:
        assert built.service.ask(AskOptions(question="liver"), picture).params["model_version"] == "base-1"
        built.loop.start()
        client.post("/train/medsegr", json={"reason": "adopt optic disc", "device": "cpu"})
        version = until(
            lambda: client.get("/medsegr/learning").json()["previous"] and built.loop.charge.version
        )
        until(lambda: built.loop.charge.version.number == 1)
        version = built.loop.charge.version
        assert (
            client.get("/medsegr/learning").json()["last"]["sentence"]
            == f"Adopted: {version.name} is better."
        )
        page = client.get("/medsegr/rounds/1/page")
        assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
        outcome = built.service.ask(AskOptions(question="optic disc"), picture)
        assert outcome.params["model_version"] == version.name
        assert built.store.get(outcome.turn_id).model_version == version.name
        assert outcome.params["label_names"] == {"optic disc": 1}
        assert built.service.targets.index("optic disc") == 4
        began = time.monotonic()
        assert client.post("/medsegr/models/rollback").json()["current"] == "base-1"
        assert time.monotonic() - began < 5
        outcome = built.service.ask(AskOptions(question="liver"), picture)
        assert outcome.params["model_version"] == "base-1"
    finally:
        built.worker.close()


def test_what_kept_an_adopted_version_from_taking_charge_is_said() -> None:
    from types import SimpleNamespace

    from medsegr.web.loop import sentence_of

    decision = {"sentence": "Adopted: the Dice of the liver rises."}
    adopted = SimpleNamespace(id=3, error=None, decision=decision, progress={}, open=False)
    assert sentence_of(adopted) == "Adopted: the Dice of the liver rises."  # type: ignore[arg-type]
    late = SimpleNamespace(**{**vars(adopted), "error": "Another version took charge meanwhile."})
    assert sentence_of(late) == "Another version took charge meanwhile."  # type: ignore[arg-type]
