"""Put this app's routes in front of MONAI Label's, on its own FastAPI application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from monailabel import endpoints
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import MONAILabelException
from starlette.responses import JSONResponse

from lib.dicomweb import dicom_routers
from lib.images import Images
from lib.labels import label_keeper
from lib.stock_routes import stock_router
from medsegr.choosing import Chooser
from medsegr.dicom.folder_archive import FolderArchive
from medsegr.dicom.pacs import Pacs
from medsegr.errors import MedSegRError
from medsegr.qa.review.queue import ReviewQueue
from medsegr.rounds.corrections import CorrectionStore
from medsegr.web.corrections import corrections_router
from medsegr.web.edge import SentenceRoute, error_reply
from medsegr.web.errors import Refusal
from medsegr.web.infer import infer_router
from medsegr.web.label_upload import label_router
from medsegr.web.learning import Learner
from medsegr.web.login.guard import Guard
from medsegr.web.login.routes import login_router
from medsegr.web.login.settings import Decision
from medsegr.web.loop import LearningLoop
from medsegr.web.next import next_router
from medsegr.web.review import review_router
from medsegr.web.rounds import rounds_router
from medsegr.web.routes import ask_router
from medsegr.web.series import series_router
from medsegr.web.service import Service
from medsegr.web.suggestions import suggestions_router
from medsegr.web.training import train_router
from medsegr.web.viewer import RootViewer, viewer_router

BUNDLED_OHIF = Path(endpoints.__file__).parent / "static" / "ohif"


def install(
    application: FastAPI,
    service: Service,
    images: Images,
    models: dict[str, bool],
    datastore: Datastore,
    review: ReviewQueue | None = None,
    ohif: Path | None = None,
    decision: Decision | None = None,
    archive: Pacs | FolderArchive | None = None,
    loop: LearningLoop | None = None,
    learner: Learner | None = None,
    chooser: Chooser | None = None,
) -> None:
    """Add the routers and move them to the head of the list; `models` maps a name to "one slice only", `review` is
    the MedSeg-QA file that physicians review here, `ohif` an OHIF to serve at the root, `decision` the login that the guard
    in front of everything asks for, `archive` where DICOM comes from, `loop` what runs rounds and knows versions, `learner`
    what makes cases of corrections. `chooser` offers the next case."""
    decision = decision or Decision(None)
    guards = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
    annotators = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
    admins = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]
    learning = [rounds_router(loop, guards, admins), train_router(loop, guards, admins)] if loop else []
    if chooser:

        def exists(image_id: str) -> bool:
            return image_id in datastore.list_images()

        about = datastore.get_image_info
        learning.append(next_router(chooser, datastore.get_unlabeled_images, exists, about, guards))
    turns, corrections = service.store, CorrectionStore(service.store.database)

    def save_label(image_id: str, path: Path, tag: str, info: dict[str, Any]) -> None:
        try:
            datastore.save_label(image_id, str(path), tag, info)
        except MONAILabelException as error:
            raise Refusal(400, str(getattr(error, "msg", "The label cannot be saved."))) from error

    if ohif:
        application.router.default = RootViewer(ohif, application.router.default)
    before = len(application.router.routes)
    for router in (
        ask_router(service, images.find, models, guards),
        infer_router(service, images.find, models, save_label, guards),
        corrections_router(turns, corrections, guards, learner=learner),
        label_router(
            turns, corrections, images.resolve, label_keeper(datastore), annotators, learner=learner
        ),
        review_router(review, guards=guards),
        suggestions_router(lambda: service.targets, guards),
        viewer_router(BUNDLED_OHIF, ohif, guards),
        login_router(decision.login, settings.MONAI_LABEL_API_STR, "/" if ohif else "/ohif/"),
        series_router(images.resolve, guards),
        *dicom_routers(archive, guards),
        *learning,
        stock_router(guards, annotators),
        _reload_router(),
    ):
        application.include_router(router, prefix=settings.MONAI_LABEL_API_STR)
    routes = application.router.routes
    routes[:] = routes[before:] + routes[:before]
    application.add_exception_handler(MedSegRError, _user_error)
    application.add_exception_handler(MONAILabelException, _stock_error)
    inner = application.build_middleware_stack()  # it was built before the app was, without these
    application.middleware_stack = Guard(
        inner, decision.login, decision.only_local, settings.MONAI_LABEL_API_STR, decision.trusted
    )


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
