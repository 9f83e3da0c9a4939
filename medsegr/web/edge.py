"""The HTTP edge that both routers share: one-sentence errors, bounded bodies, and listening to a question
from async code.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from medsegr.errors import MedSegRError
from medsegr.web.errors import Refusal, status_of
from medsegr.web.image_files import ImageFile
from medsegr.web.login.identity import ANONYMOUS
from medsegr.web.requests import MAX_BODY, AskOptions
from medsegr.web.service import Outcome, Service, Update

logger = logging.getLogger(__name__)
KEEP_ALIVE_S = 15.0


def error_reply(error: MedSegRError) -> JSONResponse:
    """{"detail": one sentence} with the status that fits."""
    return JSONResponse({"detail": str(error)}, status_code=status_of(error))


class SentenceRoute(APIRoute):
    """A route whose refusals are one sentence each, whichever application it is mounted in.

    Of a defect, or a disk that is full, the log gets the place and not the message, which may hold question text.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                first = error.errors()[0]
                field = str(first["loc"][-1]) if first.get("loc") else "request"
                return error_reply(Refusal(422, f"`{field}` is not usable: {str(first['msg']).lower()}."))
            except MedSegRError as error:
                return error_reply(error)
            except HTTPException as error:
                return JSONResponse(
                    {"detail": str(error.detail)}, status_code=error.status_code, headers=error.headers
                )
            except Exception as error:  # noqa: BLE001  # whatever it is, the client gets a sentence
                kind, frames = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
                logger.error("A request failed with %s\n%s", kind, frames)
                return error_reply(Refusal(500, f"The server failed ({kind}); its log says where."))

        return handle


async def read_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The body of a request; raises `Refusal` 413 as soon as it exceeds `limit` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Refusal(413, f"The request is larger than {limit} bytes.")
    return bytes(body)


async def updates(
    service: Service, options: AskOptions, image: ImageFile, *, one_slice: bool, editor: str = ANONYMOUS.name
) -> AsyncIterator[Update | None]:
    """Submit a question of `editor` and yield what happens to it, None whenever nothing did for a while.

    Closing the iterator before the end (the client has gone) cancels the question.
    """
    loop = asyncio.get_running_loop()
    news: asyncio.Queue[Update] = asyncio.Queue()

    def listener(update: Update) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(news.put_nowait, update)

    turn_id = await run_in_threadpool(
        service.submit, options, image, listener, one_slice=one_slice, editor=editor
    )
    ended = False
    try:
        while not ended:
            try:
                update = await asyncio.wait_for(news.get(), KEEP_ALIVE_S)
            except TimeoutError:
                yield None
                continue
            ended = update.last
            yield update
    finally:
        if not ended:
            service.worker.cancel(turn_id)


async def answer(
    service: Service,
    options: AskOptions,
    image: ImageFile,
    *,
    one_slice: bool = False,
    editor: str = ANONYMOUS.name,
) -> Outcome:
    """Wait for the reply without holding a thread; raises `MedSegRError`."""
    async for update in updates(service, options, image, one_slice=one_slice, editor=editor):
        if update and update.error:
            raise update.error
        if update and update.outcome:
            return update.outcome
    raise Refusal(500, "The question ended without a reply.")
