"""`/medsegr/corrections`: what clinicians make of answers comes back here. The app mounts this router in front of its
own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.params import Depends
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from medsegr.rounds.corrections import Correction, CorrectionStore
from medsegr.rounds.errors import StoreError
from medsegr.rounds.store import TurnStatus, TurnStore
from medsegr.web.correcting import CorrectionBody, check_rules, checked
from medsegr.web.edge import SentenceRoute
from medsegr.web.errors import Refusal
from medsegr.web.forms import Form, FormLimits, read_form
from medsegr.web.learning import Learner
from medsegr.web.login.identity import User, current_user
from medsegr.web.login.ownership import turn_of
from medsegr.web.requests import parse, parse_object
from medsegr.web.routes import MAX_LISTED, TURN_ID, mask_extension, mask_reply

NOT_YOURS = "You have no correction of this id; `GET /medsegr/corrections` lists yours."
AT_ONCE = 2
"""Corrections whose masks are read at the same time: each takes memory of a few volumes."""

FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["correction"],
                    "properties": {"correction": {"type": "string", "contentMediaType": "application/json"}},
                    "additionalProperties": {"type": "string", "format": "binary"},
                }
            }
        },
    }
}


def corrections_router(
    turns: TurnStore,
    corrections: CorrectionStore,
    guards: Sequence[Depends] = (),
    limits: FormLimits | None = None,
    learner: Learner | None = None,
) -> APIRouter:
    """The router; `guards` are dependencies (a login) that every route gets. `learner` hears of every correction once it
    counts.
    """
    router = APIRouter(
        prefix="/medsegr/corrections",
        tags=["MedSeg-R"],
        route_class=SentenceRoute,
        dependencies=list(guards),
    )
    reading = asyncio.Semaphore(AT_ONCE)

    @router.post(
        "",
        status_code=201,
        summary="Accept, edit or reject an answer; masks are parts of the form",
        openapi_extra=FORM,
    )
    async def add(request: Request) -> Response:
        async with read_form(request, limits or FormLimits()) as form:
            text = await run_in_threadpool(form.text, "correction")
            if text is None:
                raise Refusal(422, "The form has no field `correction`; a JSON object is expected in it.")
            body = parse(CorrectionBody, parse_object(text, "`correction`"))
            user = current_user(request)
            async with reading:
                stored = await run_in_threadpool(_add, turns, corrections, body, form, user)
                if learner:
                    await run_in_threadpool(learner.learn, stored)
        return JSONResponse(asdict(stored), status_code=201)

    @router.get("", summary="The newest corrections, of one image or turn if named, oldest first")
    def listed(
        request: Request, image: str | None = None, turn: str | None = None, limit: int = 200
    ) -> list[dict[str, Any]]:
        if not 1 <= limit <= MAX_LISTED:
            raise Refusal(422, f"`limit` must be between 1 and {MAX_LISTED}.")
        user = current_user(request)
        editor = None if user.admin else user.name
        return [asdict(found) for found in corrections.corrections(image, turn, editor, limit)]

    @router.get("/{correction_id}", summary="One correction")
    def one(request: Request, correction_id: str) -> dict[str, Any]:
        return asdict(_seen(corrections, correction_id, current_user(request)))

    @router.get("/{correction_id}/masks/{k}", summary="The mask of the k-th finding of a correction")
    def mask(request: Request, correction_id: str, k: int, format: str = "nrrd") -> Response:
        found = _seen(corrections, correction_id, current_user(request))
        extension = mask_extension(format)
        return mask_reply(corrections.mask(found.id, k), f"{found.id}_{k}", extension)

    return router


def _add(
    turns: TurnStore, corrections: CorrectionStore, body: CorrectionBody, form: Form, user: User
) -> Correction:
    """Check everything, then store; raises `MedSegRError`."""
    turn = turn_of(user, turns, body.turn_id)
    if turn.status is not TurnStatus.DONE:
        raise Refusal(409, f"This turn is {turn.status.value}; only an answer can be corrected.")
    check_rules(body, turn, form.files)
    return corrections.add(checked(body, turn, turns.packed_masks(turn), form, user.name))


def _seen(corrections: CorrectionStore, correction_id: str, user: User) -> Correction:
    """The correction, which must be the user's to see; raises `StoreError` or `Refusal` 403."""
    if not TURN_ID.fullmatch(correction_id):
        raise Refusal(
            404, "A correction's id has 32 hexadecimal digits; `GET /medsegr/corrections` lists them."
        )
    try:
        found = corrections.get(correction_id)
    except StoreError:
        if user.admin:
            raise
        raise Refusal(403, NOT_YOURS) from None  # the same as for another user's: nothing is revealed
    if not user.may_see(found.editor):
        raise Refusal(403, NOT_YOURS)
    return found
