"""`/train` as MONAI Label's clients call it: the "Train" of 3D Slicer, "Update Model" of OHIF. The replies are MONAI Label's, the
work is a round, so one that was started any other way is seen and can be stopped here as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.params import Depends
from starlette.concurrency import run_in_threadpool

from medsegr.rounds.rounds_log import Round, RoundStatus
from medsegr.web.edge import SentenceRoute
from medsegr.web.errors import Refusal
from medsegr.web.login.identity import current_user
from medsegr.web.loop import LearningLoop, sentence_of

MODEL = "medsegr"
STATES = {
    RoundStatus.QUEUED: "SUBMITTED",
    RoundStatus.RUNNING: "RUNNING",
    RoundStatus.FAILED: "ERROR",
    RoundStatus.CANCELLED: "STOPPED",
}
"""What MONAI Label calls the state of a task; every other end is DONE."""
UNKNOWN_TOTAL = 100
"""Of a round that has only just begun: OHIF takes epoch 0 for 1, and must not show it as done."""
Params = Annotated[dict[str, Any] | None, Body()]


def train_router(
    loop: LearningLoop, guards: Sequence[Depends] = (), admins: Sequence[Depends] = ()
) -> APIRouter:
    """The router; arguments as for `rounds.rounds_router`."""
    router = APIRouter(prefix="/train", tags=["Train"], route_class=SentenceRoute)

    def begin(request: Request, params: Mapping[str, Any]) -> Round:
        return loop.start_round(current_user(request).name, params)

    @router.get("/", summary="Status of the newest round", dependencies=list(guards))
    def status(all: bool = False, check_if_running: bool = False) -> Any:
        if check_if_running:
            running = loop.log.open_round()
            if running is None:
                raise Refusal(404, "No round is running.")
            return task(running)
        loop.log.close_orphans()
        rounds = loop.log.rounds()
        if not rounds:
            raise Refusal(404, "No round has run yet.")
        return [task(round_) for round_ in rounds] if all else task(rounds[-1])

    @router.post("/", summary="Start a round", include_in_schema=False, dependencies=list(admins))
    def run_all(request: Request, params: Params = None) -> dict[str, Any]:
        own = (params or {}).get(MODEL)
        round_ = begin(request, own if isinstance(own, dict) else {})
        return {MODEL: {"result": task(round_), "detail": None}}

    @router.post("/{model}", summary="Start a round", dependencies=list(admins))
    async def run(
        request: Request, model: str, params: Params = None, run_sync: bool = False, enqueue: bool = False
    ) -> dict[str, Any]:
        # `enqueue` is not heeded: a second round would train on what the first has just used.
        if model != MODEL:
            raise Refusal(404, f"There is no model of this name that can be trained; known is {MODEL}.")
        round_ = await run_in_threadpool(begin, request, params or {})
        if not run_sync:
            return task(round_)
        return stats(await run_in_threadpool(loop.starter.wait, round_.id))

    @router.delete("/", summary="Cancel the running round", dependencies=list(admins))
    def stop(request: Request) -> dict[str, Any] | None:
        running = loop.log.open_round()
        return task(loop.cancel(running.id, current_user(request).name)) if running else None

    return router


def task(round_: Round) -> dict[str, Any]:
    """A round as MONAI Label shows a task. `details` is never empty: Slicer reads its last line."""
    return {
        "id": str(round_.id),
        "status": STATES.get(round_.status, "DONE"),
        "request": {"model": MODEL, **round_.options},
        "start_ts": _local(round_.started or round_.created),
        **({"end_ts": _local(round_.finished)} if round_.finished else {}),
        "details": [sentence_of(round_)],
    }


def stats(round_: Round | None) -> dict[str, Any]:
    """What OHIF and Slicer draw their bars from: `epoch` of `total_epochs` while there is no `total_time`, and `best_metric`.
    An epoch here is a step of the round's phase.
    """
    if round_ is None:
        return {"epoch": 0, "total_epochs": 1, "total_time": "0:00:00", "best_metric": 0.0}
    progress = round_.progress
    found: dict[str, Any] = {
        "round": round_.id,
        "status": round_.status.value,
        "phase": progress.get("phase", ""),
        "sentence": sentence_of(round_),
        "epoch": int(progress.get("done", 0)),
        "total_epochs": max(int(progress.get("total", UNKNOWN_TOTAL)), 1),
        "best_metric": best_metric(round_),
    }
    if not round_.open:
        found["total_time"] = _duration(round_)
    return found


def best_metric(round_: Round) -> float:
    """The challenger's mean Dice on the corrected structures, in [0, 1]; 0 where the round was not judged."""
    value = round_.decision.get("numbers", {}).get("corrected_after")
    return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) else 0.0


def _duration(round_: Round) -> str:
    begin, end = round_.started or round_.created, round_.finished or round_.created
    seconds = max((datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds(), 0)
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _local(stamp: str) -> str:
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")
