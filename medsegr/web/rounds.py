"""`/medsegr/rounds`, `/medsegr/models`, `/medsegr/learning`: what the learning loop did and does; start and cancel rounds, put
versions in charge and go back; with them what is taken back, and the label list. The app mounts this router in front of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Depends as Dependency
from fastapi.params import Depends
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from medsegr.rounds.errors import StoreError
from medsegr.rounds.registry import Charge, Version
from medsegr.rounds.rounds_log import Round
from medsegr.web.edge import SentenceRoute
from medsegr.web.errors import Refusal
from medsegr.web.labels import add_labels
from medsegr.web.learning import without_case
from medsegr.web.login.guard import ADMIN_ONLY
from medsegr.web.login.identity import current_user
from medsegr.web.loop import MAX_REASON, LearningLoop, brief
from medsegr.web.rollback_requests import open_requests, request_rollback
from medsegr.web.routes import body_schema, json_body, listing_limit
from medsegr.web.withdrawals import add_withdrawals

PAGE = "page.html"
NO_PAGE = "This round has no page; it is written when a round was judged."
SAFE_PAGE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'",
}

Reason = Annotated[str, Field(max_length=MAX_REASON)]


class RoundBody(BaseModel):
    """The body of `POST /medsegr/rounds`; every field may be left out, and the server's policy decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_minutes: float | None = None
    device: str | None = None
    processes: int | None = None
    reason: Reason = ""


class ChargeBody(BaseModel):
    """The body of a promotion, of a rollback or of a request for one: why."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reason: Reason = ""


def rounds_router(
    loop: LearningLoop, guards: Sequence[Depends] = (), admins: Sequence[Depends] = ()
) -> APIRouter:
    """The router; `guards` are dependencies (a login) that every route gets, `admins` those of what changes the model or what it
    may learn from."""
    router = APIRouter(prefix="/medsegr", tags=["MedSeg-R"], route_class=SentenceRoute)
    _add_rounds(router, loop, list(guards), list(admins))
    _add_models(router, loop, list(guards), list(admins))
    add_withdrawals(router, loop, list(admins))
    add_labels(router, loop, list(guards))
    return router


def _add_rounds(router: APIRouter, loop: LearningLoop, guards: list[Depends], admins: list[Depends]) -> None:
    @router.get(
        "/learning", summary="Corrections since the last round, progress, last decision", dependencies=guards
    )
    def learning(request: Request) -> dict[str, Any]:
        user = current_user(request)
        return {
            **loop.state(),
            "without_case": without_case(loop.log.database),
            "administrator": user.admin,
            "rollback_requests": open_requests(loop.registry, user),
        }

    @router.get("/rounds", summary="The newest rounds, oldest first", dependencies=guards)
    def rounds(limit: int = 200) -> list[dict[str, Any]]:
        return [brief(round_) for round_ in loop.log.rounds(listing_limit(limit))]

    @router.post("/rounds", status_code=201, summary="Start a round", dependencies=admins,
                 openapi_extra=body_schema(RoundBody))  # fmt: skip
    async def start(request: Request) -> dict[str, Any]:
        body = await json_body(request, RoundBody)
        editor = current_user(request).name
        return brief(await run_in_threadpool(loop.start_round, editor, body.model_dump()))

    @router.get("/rounds/{round_id}", summary="One round with its decision", dependencies=guards)
    def one(request: Request, round_id: int) -> dict[str, Any]:
        found = _found(loop, round_id)
        return {**asdict(found), **brief(found)} | ({} if current_user(request).admin else {"data": None})

    @router.get("/rounds/{round_id}/page", summary="One round as a page, with pictures (administrators)",
                dependencies=[Dependency(_administrator), *admins])  # fmt: skip
    def page(round_id: int) -> Response:
        found = _found(loop, round_id)
        path = loop.log.database.paths.rounds / str(found.id) / PAGE
        if not path.is_file():
            raise Refusal(404, NO_PAGE)
        return HTMLResponse(path.read_bytes(), headers=SAFE_PAGE)

    @router.delete("/rounds/{round_id}", summary="Cancel a round", dependencies=admins)
    def cancel(request: Request, round_id: int) -> dict[str, Any]:
        return brief(loop.cancel(round_id, current_user(request).name))


def _add_models(router: APIRouter, loop: LearningLoop, guards: list[Depends], admins: list[Depends]) -> None:
    @router.get("/models", summary="Model versions, and who was in charge when", dependencies=guards)
    def models() -> dict[str, Any]:
        registry = loop.registry
        previous = registry.previous()
        return {
            "current": registry.current().name,
            "answering": loop.charge.version.name,
            "previous": previous.name if previous else None,
            "versions": [_version(version) for version in registry.versions()],
            "charges": [asdict(charge) for charge in registry.charges()],
        }

    @router.post("/models/rollback", summary="Go back to the version that was in charge before",
                 dependencies=admins, openapi_extra=body_schema(ChargeBody))  # fmt: skip
    async def rollback(request: Request) -> dict[str, Any]:
        body = await json_body(request, ChargeBody)
        editor = current_user(request).name
        return _charged(loop, await run_in_threadpool(loop.charge.rollback, editor, body.reason))

    @router.post("/rollback-requests", status_code=201, summary="Ask the administrators to go back to the version before",
                 dependencies=guards, openapi_extra=body_schema(ChargeBody, required=True))  # fmt: skip
    async def request_back(request: Request) -> dict[str, Any]:
        body = await json_body(request, ChargeBody)
        editor = current_user(request).name
        return await run_in_threadpool(request_rollback, loop.registry, editor, body.reason)

    @router.post("/models/{version}/promote", summary="Put a version in charge", dependencies=admins,
                 openapi_extra=body_schema(ChargeBody))  # fmt: skip
    async def promote(request: Request, version: str) -> dict[str, Any]:
        body = await json_body(request, ChargeBody)
        editor = current_user(request).name
        return _charged(loop, await run_in_threadpool(loop.charge.promote, version, editor, body.reason))


def _administrator(request: Request) -> None:
    """A page shows corrections of several editors; raises `Refusal` for who may see their own only."""
    if not current_user(request).admin:
        raise Refusal(403, ADMIN_ONLY)


def _charged(loop: LearningLoop, version: Version) -> dict[str, Any]:
    charges: list[Charge] = loop.registry.charges(1)
    return {"current": version.name, **({"charge": asdict(charges[0])} if charges else {})}


def _version(version: Version) -> dict[str, Any]:
    """A version as clients see it; not where it lies."""
    kept = {name: value for name, value in version.meta.items() if name in ("metrics", "licence")}
    return {
        "name": version.name,
        "number": version.number,
        "parent": version.parent,
        "round": version.round_id,
        "created": version.created,
        "sha256": version.sha256,
        "targets": list(version.targets),
        **kept,
    }


def _found(loop: LearningLoop, round_id: int) -> Round:
    try:
        return loop.log.get(round_id)
    except StoreError as error:
        raise Refusal(404, str(error)) from error
