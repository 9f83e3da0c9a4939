"""Put this app's routes in front of MONAI Label's, on its own FastAPI application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import MONAILabelException
from starlette.responses import JSONResponse

from lib.images import Images
from medsegr.errors import MedSegRError
from medsegr.qa.review.queue import ReviewQueue
from medsegr.web.edge import SentenceRoute, error_reply
from medsegr.web.errors import Refusal
from medsegr.web.infer import infer_router
from medsegr.web.review import review_router
from medsegr.web.routes import ask_router
from medsegr.web.service import Service


def install(
    application: FastAPI,
    service: Service,
    images: Images,
    models: dict[str, bool],
    datastore: Datastore,
    review: ReviewQueue | None = None,
) -> None:
    """Add the routers and move them to the head of the list; `models` maps a name to "one slice only", `review` is
    the MedSeg-QA file that physicians review here."""
    guards = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]

    def save_label(image_id: str, path: Path, tag: str, info: dict[str, Any]) -> None:
        try:
            datastore.save_label(image_id, str(path), tag, info)
        except MONAILabelException as error:
            raise Refusal(400, str(getattr(error, "msg", "The label cannot be saved."))) from error

    before = len(application.router.routes)
    for router in (
        ask_router(service, images.find, models, guards),
        infer_router(service, images.find, models, save_label, guards),
        review_router(review, guards=guards),
        _reload_router(),
    ):
        application.include_router(router, prefix=settings.MONAI_LABEL_API_STR)
    routes = application.router.routes
    routes[:] = routes[before:] + routes[:before]
    application.add_exception_handler(MedSegRError, _user_error)
    application.add_exception_handler(MONAILabelException, _stock_error)
    application.middleware_stack = (
        application.build_middleware_stack()
    )  # it was built before the app was, without these


def _reload_router() -> APIRouter:
    router = APIRouter(route_class=SentenceRoute)

    @router.post("/reload", include_in_schema=False)
    async def reload() -> Response:
        # The stock route would make a second app beside the running one, with a model and a queue of its own.
        raise Refusal(403, "This app cannot be reloaded in place; restart the server instead.")

    return router


async def _user_error(_request: Request, error: Exception) -> Response:
    return (
        error_reply(error)
        if isinstance(error, MedSegRError)
        else JSONResponse({"detail": "Bad request."}, 400)
    )


async def _stock_error(_request: Request, error: Exception) -> Response:
    return JSONResponse(
        {"detail": str(getattr(error, "msg", "The request cannot be served."))}, status_code=400
    )
