"""`GET /medsegr/next`, `POST /medsegr/skip`, `POST /medsegr/opened`: the next case for a clinician, with the reason for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.params import Depends
from pydantic import BaseModel, BeforeValidator, ConfigDict
from starlette.concurrency import run_in_threadpool

from medsegr.choosing import Chooser, NothingLeft
from medsegr.choosing.strategies import DEFAULT, DESCRIPTIONS
from medsegr.web.edge import SentenceRoute, read_body
from medsegr.web.errors import Refusal
from medsegr.web.login.identity import current_user
from medsegr.web.requests import parse, parse_object

MAX_ID = 1000
MAX_STRATEGY = 32
UNKNOWN = "There is no image of this id among the studies; `GET /medsegr/next` gives one that exists."

ListImages = Callable[[], Sequence[str]]
About = Callable[[str], Mapping[str, Any]]


def _image_id(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_ID:
        raise ValueError(f"`image` must be the id of an image: text of 1 to {MAX_ID} characters.")
    return value.strip()


class ImageBody(BaseModel):
    """The body of `POST /medsegr/opened`."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    image: Annotated[str, BeforeValidator(_image_id)]


class SkipBody(ImageBody):
    """The body of `POST /medsegr/skip`; `undo` takes an earlier skip back."""

    undo: bool = False


def next_router(
    chooser: Chooser,
    unlabelled: ListImages,
    exists: Callable[[str], bool],
    about: About,
    guards: Sequence[Depends] = (),
) -> APIRouter:
    """The router. `unlabelled` lists the ids of images without a label; `exists` tells whether an id is one of the studies';
    `about` gives what the datastore knows of an image, of which the UIDs of its study and series are passed on."""
    router = APIRouter(
        prefix="/medsegr", tags=["MedSeg-R"], route_class=SentenceRoute, dependencies=list(guards)
    )

    @router.get("/next", summary="The next case, and why; it counts as opened from then on")
    def next_case(strategy: str = DEFAULT) -> dict[str, Any]:
        if len(strategy) > MAX_STRATEGY:
            raise Refusal(422, f"`strategy` must be one of {', '.join(DESCRIPTIONS)}.")
        try:
            choice = chooser.next(unlabelled(), strategy)
        except NothingLeft as nothing:
            raise Refusal(404, str(nothing)) from None
        study = about(choice.image).get("StudyInstanceUID")
        return {"image": choice.image, "why": choice.why, "strategy": choice.strategy, "study": study}

    @router.get("/strategies", summary="Ways to choose the next case; the first is the default")
    def strategies() -> list[dict[str, str]]:
        names = [DEFAULT, *(name for name in DESCRIPTIONS if name != DEFAULT)]
        return [{"name": name, "description": DESCRIPTIONS[name]} for name in names]

    @router.post("/skip", summary="Do not offer this image to anybody again, or with `undo` do")
    async def skip(request: Request) -> dict[str, Any]:
        body = parse(SkipBody, parse_object(await read_body(request), "The request body"))
        await run_in_threadpool(_known, exists, body.image)
        await run_in_threadpool(chooser.skips.set, body.image, current_user(request).name, not body.undo)
        if body.undo:
            chooser.opened.forget(body.image)
        return {"image": body.image, "skipped": not body.undo}

    @router.post("/opened", summary="Somebody is looking at this image: it is offered to nobody for a while")
    async def opened(request: Request) -> dict[str, Any]:
        body = parse(ImageBody, parse_object(await read_body(request), "The request body"))
        await run_in_threadpool(_known, exists, body.image)
        chooser.opened.note(body.image)
        return {"image": body.image, "minutes": chooser.opened.minutes}

    return router


def _known(exists: Callable[[str], bool], image: str) -> None:
    if not exists(image):
        raise Refusal(404, UNKNOWN)
