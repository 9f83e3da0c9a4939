"""`/medsegr/review`: the page on which physicians review a MedSeg-QA file, and the routes behind it.

The app mounts the router beside its other routes; `medsegr qa review` serves it alone. The file under review and every
path in it are the server's own: a client names conversations by id and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.params import Depends
from fastapi.responses import FileResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from medsegr.errors import MedSegRError
from medsegr.imaging import COLOURS
from medsegr.qa.review.entries import MAX_NAME, Entry, TurnText, Verdict
from medsegr.qa.review.queue import Progress, ReviewQueue
from medsegr.qa.schema import Conversation
from medsegr.web.edge import SentenceRoute
from medsegr.web.errors import Refusal
from medsegr.web.login.identity import login_name
from medsegr.web.requests import MAX_ANSWER, MAX_QUESTION
from medsegr.web.review_pictures import Pictures, targets_of

HERE = Path(__file__).resolve().parent
PAGE = HERE / "pages" / "review.html"
ASSETS = HERE / "static" / "review"
ASSET_TYPES = {".js": "text/javascript", ".css": "text/css"}
PREFIX = "/medsegr/review"
MAX_NOTE = 2000
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
PICTURE_HEADERS = {"Cache-Control": "private, max-age=300"}

Name = Annotated[str, Query(min_length=1, max_length=MAX_NAME, description="The reviewer's name.")]
Id = Annotated[str, Query(min_length=1, max_length=500, description="A conversation's id.")]
SliceIndex = Annotated[int, Query(ge=0, description="Slice of a volume; 0 for a picture.")]


class TurnBody(BaseModel):
    """One turn of an edited conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    question: str = Field(max_length=MAX_QUESTION)
    answer: str = Field(max_length=MAX_ANSWER)


class VerdictBody(BaseModel):
    """A verdict; `turns` (all of them) goes with an edit and only with it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reviewer: str = Field(min_length=1, max_length=MAX_NAME)
    id: str = Field(min_length=1, max_length=500)
    verdict: Verdict
    turns: list[TurnBody] | None = Field(None, max_length=100)
    note: str | None = Field(None, max_length=MAX_NOTE)


@dataclass(frozen=True)
class _Desk:
    """The file under review with its pictures."""

    queue: ReviewQueue
    pictures: Pictures

    def conversation(self, id_: str) -> Conversation:
        """Raises `Refusal` 404 for an unknown id."""
        if id_ not in self.queue:
            raise Refusal(404, "The file under review has no conversation with this id.")
        return self.queue.conversations[id_]

    def name(self, request: Request, given: str) -> str:
        """The reviewer: whoever is logged in, else as `given`; everybody reviews in their own name."""
        return self.queue.known_as(login_name(request) or given)


def review_router(
    queue: ReviewQueue | None, reviewer: str | None = None, guards: Sequence[Depends] = ()
) -> APIRouter:
    """The router; without a queue every path is a 404 of one sentence.

    `reviewer` is the name that the page begins with; None lets it ask. `guards` are dependencies (a login) of every
    route that shows or takes something about the file.
    """
    router = APIRouter(prefix=PREFIX, tags=["Review"], route_class=SentenceRoute)
    if queue is None:
        _add_refusal(router)
        return router
    desk = _Desk(queue, Pictures(queue.root))
    _add_page(router)
    _add_reading(router, desk, reviewer, list(guards))
    _add_pictures(router, desk, list(guards))
    _add_verdicts(router, desk, list(guards))
    return router


def review_app(queue: ReviewQueue, reviewer: str | None = None, only_local: bool = True) -> FastAPI:
    """An application that serves nothing but the review. `only_local`: refuse requests that reach the server under a
    name other than localhost (a web page elsewhere could otherwise rebind its own name to this address)."""
    app = FastAPI(title="MedSeg-QA review", docs_url=None, redoc_url=None, openapi_url=None)
    if only_local:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"])
    app.include_router(review_router(queue, reviewer))

    @app.get("/", include_in_schema=False)
    def home() -> Response:
        return RedirectResponse(PREFIX)

    return app


def _add_refusal(router: APIRouter) -> None:
    def refuse() -> Response:
        raise Refusal(404, "No file is under review on this server; name one with `--conf review FILE`.")

    for path in ("", "/{rest:path}"):
        router.add_api_route(path, refuse, methods=["GET", "POST"], include_in_schema=False)


def _add_page(router: APIRouter) -> None:
    assets = {path.name: path for path in ASSETS.iterdir() if path.suffix in ASSET_TYPES}

    @router.get("", include_in_schema=False)
    def page() -> Response:
        return FileResponse(PAGE, media_type="text/html", headers=HEADERS)

    @router.get("/static/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        if name not in assets:
            raise Refusal(404, "The review page has no such file.")
        path = assets[name]
        return FileResponse(path, media_type=ASSET_TYPES[path.suffix], headers=HEADERS)


def _add_reading(router: APIRouter, desk: _Desk, reviewer: str | None, guards: list[Depends]) -> None:
    @router.get("/state", summary="The file, who reviews it and how far they are", dependencies=guards)
    def state(request: Request) -> dict[str, Any]:
        queue, known = desk.queue, login_name(request)
        return {
            "file": queue.file.name,
            "total": len(queue.conversations),
            "first": next(iter(queue.conversations), None),
            "reviewer": known or reviewer,
            "logged_in": known is not None,
            "done": {who: progress.done for who, progress in queue.progress().items()},
        }

    @router.get("/next", summary="The next conversation without this reviewer's verdict", dependencies=guards)
    def following(request: Request, reviewer: Name, after: Id | None = None) -> dict[str, str | None]:
        if after is not None:
            desk.conversation(after)
        return {"id": desk.queue.next_unreviewed(desk.name(request, reviewer), after)}

    @router.get("/item", summary="One conversation, as this reviewer may see it", dependencies=guards)
    def item(request: Request, id: Id, reviewer: Name) -> dict[str, Any]:
        conversation = desk.conversation(id)
        name = desk.name(request, reviewer)
        shown = desk.queue.item(id, name)
        return {
            **conversation.to_json(),
            **_picture_json(desk.pictures, conversation),
            "position": shown.position,
            "previous": shown.previous,
            "next": shown.next,
            "own": _entry_json(shown.own),
            "others": [_entry_json(entry) for entry in shown.others],
            "progress": _progress_json(desk.queue, name),
        }


def _add_pictures(router: APIRouter, desk: _Desk, guards: list[Depends]) -> None:
    @router.get("/image", summary="The image, or one slice of it, as PNG", dependencies=guards)
    def image(id: Id, k: SliceIndex = 0) -> Response:
        return _png(desk.pictures.image(desk.conversation(id), k))

    @router.get("/outline", summary="The outline of one target as a transparent PNG", dependencies=guards)
    def outline(id: Id, target: Annotated[int, Query(ge=0)], k: SliceIndex = 0) -> Response:
        conversation = desk.conversation(id)
        if target >= len(targets_of(conversation)):
            raise Refusal(
                404, f"The conversation has {len(targets_of(conversation))} targets, counted from 0."
            )
        return _png(desk.pictures.outline(conversation, target, k))


def _add_verdicts(router: APIRouter, desk: _Desk, guards: list[Depends]) -> None:
    @router.post("/verdicts", summary="Accept, edit or reject a conversation", dependencies=guards)
    def verdict(request: Request, body: VerdictBody) -> dict[str, Any]:
        desk.conversation(body.id)
        name = desk.name(request, body.reviewer)
        turns = None if body.turns is None else [TurnText(t.question, t.answer) for t in body.turns]
        entry = desk.queue.record(body.id, name, body.verdict, turns, body.note)
        return {
            "entry": _entry_json(entry),
            "next": desk.queue.next_unreviewed(name, body.id),
            "progress": _progress_json(desk.queue, name),
        }


def _picture_json(pictures: Pictures, conversation: Conversation) -> dict[str, Any]:
    """Targets with their colours, and how the image is shown; `view` is None where it cannot be, and `trouble` says why."""
    targets = [
        {"label": target.label, "colour": "#{:02x}{:02x}{:02x}".format(*COLOURS[n % len(COLOURS)])}
        for n, target in enumerate(targets_of(conversation))
    ]
    try:
        return {"targets": targets, "view": asdict(pictures.view(conversation)), "trouble": None}
    except MedSegRError as error:
        return {"targets": targets, "view": None, "trouble": str(error)}


def _entry_json(entry: Entry | None) -> dict[str, Any] | None:
    return entry.to_json() if entry else None


def _progress_json(queue: ReviewQueue, name: str) -> dict[str, int]:
    return asdict(queue.progress().get(name) or Progress(len(queue.conversations), 0, 0, 0))


def _png(data: bytes) -> Response:
    return Response(data, media_type="image/png", headers=PICTURE_HEADERS)
