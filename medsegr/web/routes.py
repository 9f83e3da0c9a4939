"""`/medsegr/...`: ask with events, cancel, look at turns and masks, health. The app mounts this router in
front of its own.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.params import Depends
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from medsegr.rounds.store import StoredMask
from medsegr.web.edge import SentenceRoute, read_body, updates
from medsegr.web.errors import Refusal, status_of
from medsegr.web.image_files import ImageFile
from medsegr.web.login.identity import current_user
from medsegr.web.login.ownership import turn_editor, turn_of
from medsegr.web.masks import Geometry, write
from medsegr.web.requests import AskBody, parse, parse_object
from medsegr.web.service import Service, Update

TURN_ID = re.compile(r"[0-9a-f]{32}")
MAX_LISTED = 1000
MASK_TYPES = {"nrrd": ".nrrd", "nifti": ".nii.gz"}
MEDIA_TYPES = {
    ".nrrd": "application/octet-stream",
    ".nii.gz": "application/gzip",
    ".nii": "application/octet-stream",
    ".png": "image/png",
}

Body = TypeVar("Body", bound=BaseModel)
FindImage = Callable[[str, str], ImageFile]
"""(image id, session id) -> file; raises `Refusal`."""


def ask_router(
    service: Service, find: FindImage, models: dict[str, bool], guards: Sequence[Depends] = ()
) -> APIRouter:
    """The router. `models` maps a model's name to whether it answers about one slice only; the first is the
    default.

    `guards` are dependencies (a login) that every route but the health checks gets.
    """
    router = APIRouter(prefix="/medsegr", tags=["MedSeg-R"], route_class=SentenceRoute)
    _add_health(router, service)
    _add_ask(router, service, find, models, list(guards))
    _add_turns(router, service, list(guards))
    return router


def _add_health(router: APIRouter, service: Service) -> None:
    @router.get("/healthz", summary="The server is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz", summary="Weights are loaded and the golden question passed")
    async def readyz() -> Response:
        reason, info = service.unready(), service.worker.info
        if reason or info is None:
            detail = reason or "The model is loading."
            state = service.worker.state.value
            return JSONResponse({"ready": False, "state": state, "detail": detail}, status_code=503)
        return JSONResponse({"ready": True, "model_version": info.version, "weights_licence": info.licence})


def _add_ask(
    router: APIRouter, service: Service, find: FindImage, models: dict[str, bool], guards: list[Depends]
) -> None:
    @router.post(
        "/ask",
        summary="Ask a question; the reply comes as server-sent events",
        dependencies=guards,
        openapi_extra=body_schema(AskBody, required=True),
    )
    async def ask(request: Request) -> StreamingResponse:
        body = parse(AskBody, parse_object(await read_body(request), "The request body"))
        model = body.model or next(iter(models))
        if model not in models:
            raise Refusal(404, f"There is no model of this name; known are {', '.join(models)}.")
        image = await run_in_threadpool(find, body.image, body.session_id)
        editor = current_user(request).name
        news = updates(service, body, image, one_slice=models[model], editor=editor)
        first = await anext(news)  # refusals of the queue must become a status, not an event
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(first, news), media_type="text/event-stream", headers=headers)


async def _events(first: Update | None, news: AsyncIterator[Update | None]) -> AsyncIterator[bytes]:
    yield _event(first)
    try:
        async for update in news:
            yield _event(update)
    finally:
        close: Any = getattr(news, "aclose", None)
        if close:
            await close()


def _event(update: Update | None) -> bytes:
    if update is None:
        return b": still here\n\n"
    data = dict(update.data)
    if update.error:
        data |= {"status": status_of(update.error), "detail": str(update.error)}
    return f"event: {update.kind.value}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _add_turns(router: APIRouter, service: Service, guards: list[Depends]) -> None:
    @router.get(
        "/turns", summary="The newest turns, of one image if named, oldest first", dependencies=guards
    )
    def turns(request: Request, image: str | None = None, limit: int = 200) -> list[dict[str, Any]]:
        editor = turn_editor(current_user(request))
        return [asdict(turn) for turn in service.store.turns(image, listing_limit(limit), editor)]

    @router.get("/turns/{turn_id}", summary="One turn", dependencies=guards)
    def turn(request: Request, turn_id: str) -> dict[str, Any]:
        return asdict(turn_of(current_user(request), service.store, _checked(turn_id)))

    @router.delete(
        "/turns/{turn_id}", summary="Cancel a question that waits or is being answered", dependencies=guards
    )
    def cancel(request: Request, turn_id: str) -> dict[str, str]:
        service.cancel(turn_of(current_user(request), service.store, _checked(turn_id)).id)
        return {"turn_id": turn_id, "status": "cancelling"}

    @router.get(
        "/turns/{turn_id}/masks/{n}",
        summary="The whole mask of one finding; number 0 is an empty mask on the image's grid",
        dependencies=guards,
    )
    def mask(request: Request, turn_id: str, n: int, format: str = "nrrd") -> Response:
        extension = mask_extension(format)
        turn = turn_of(current_user(request), service.store, _checked(turn_id))
        return mask_reply(service.mask(turn.id, n), f"{turn_id}_{n}", extension)


async def json_body(request: Request, model: type[Body]) -> Body:
    """The JSON object that was sent, {} where nothing was; raises `Refusal`."""
    raw = await read_body(request)
    return parse(model, parse_object(raw, "The request body") if raw else {})


def body_schema(model: type[BaseModel], *, required: bool = False) -> dict[str, Any]:
    """What OpenAPI says of a body that `json_body` reads."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": required, "content": content}}


def listing_limit(limit: int) -> int:
    """How many entries a client asks for; raises `Refusal` 422."""
    if not 1 <= limit <= MAX_LISTED:
        raise Refusal(422, f"`limit` must be between 1 and {MAX_LISTED}.")
    return limit


def mask_extension(format: str) -> str:
    """The file type of a mask that a client asks for; raises `Refusal` 422."""
    if format not in MASK_TYPES:
        raise Refusal(422, f"`format` must be one of {', '.join(MASK_TYPES)}.")
    return MASK_TYPES[format]


def mask_reply(stored: StoredMask, name: str, extension: str) -> Response:
    """A stored mask as a download."""
    with tempfile.TemporaryDirectory(prefix="medsegr-") as folder:
        path = Path(folder) / f"{name}{extension}"
        write(path, stored.mask.view(np.uint8), Geometry.from_json(stored.geometry))
        return file_reply(path, extension)


def file_reply(path: Path, extension: str) -> Response:
    """The bytes of `path` as a download; the file may go afterwards."""
    headers = {"Content-Disposition": f'attachment; filename="{path.name}"'}
    return Response(path.read_bytes(), media_type=MEDIA_TYPES[extension], headers=headers)


def _checked(turn_id: str) -> str:
    if not TURN_ID.fullmatch(turn_id):
        raise Refusal(
            404, "A turn's id has 32 hexadecimal digits; `GET /medsegr/turns` lists those that exist."
        )
    return turn_id
