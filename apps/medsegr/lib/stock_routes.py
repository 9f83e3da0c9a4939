"""MONAI Label's own routes that ask the archive or write images, in the thread pool and with checked names.

Its versions run on the event loop, where a PACS that is slow to answer, or a series that has to be downloaded first, would
hold up every viewer; and they take the name of an uploaded image for a path, wherever that leads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, BackgroundTasks, File, Form, Request, Response, UploadFile
from fastapi.params import Depends
from monailabel.endpoints.activelearning import sample
from monailabel.endpoints.datastore import ResultType, add_image, datastore, download_dataset, download_image
from monailabel.endpoints.info import app_info

from medsegr.web.errors import Refusal
from medsegr.web.login.identity import login_name

MAX_NAME = 200
SEPARATORS = frozenset("/\\\0")


def stock_router(guards: Sequence[Depends], annotators: Sequence[Depends]) -> APIRouter:
    """The router: paths, parameters and replies are MONAI Label's. `annotators` are the dependencies of what writes."""
    router = APIRouter(include_in_schema=False)

    @router.get("/info/", dependencies=list(guards))
    def info() -> Any:
        return app_info()

    @router.get("/datastore/", dependencies=list(guards))
    def listed(output: ResultType | None = None) -> Any:
        return datastore(output)

    @router.get("/datastore/image", dependencies=list(guards), response_model=None)
    def image_file(image: str) -> Response:
        found: Response = download_image(image)
        return found

    @router.head("/datastore/image", dependencies=list(guards))
    def image_is_there(image: str, check_sum: str | None = None) -> Any:
        return download_image(image, check_only=True, check_sum=check_sum)

    @router.get("/datastore/dataset", dependencies=list(annotators), response_model=None)
    def dataset(limit_cases: int | None = None) -> Response:
        found: Response = download_dataset(limit_cases)
        return found

    @router.put("/datastore/", dependencies=list(annotators))
    @router.put("/datastore/image", dependencies=list(annotators))
    def new_image(
        request: Request,
        background_tasks: BackgroundTasks,
        image: str | None = None,
        params: str = Form("{}"),
        file: UploadFile = File(...),  # noqa: B008
    ) -> Any:
        if image:
            check_name(image)
        return add_image(background_tasks, image, params, file, login_name(request))

    @router.post("/activelearning/{strategy}", dependencies=list(guards))
    def next_sample(request: Request, strategy: str, params: dict[str, Any] | None = None) -> Any:
        return sample(strategy, params, login_name(request))

    return router


def check_name(image_id: str) -> None:
    """Raises `Refusal` 422 for a name of a new image that could be a path."""
    if len(image_id) > MAX_NAME or image_id.startswith(".") or SEPARATORS & set(image_id):
        raise Refusal(
            422,
            f"The name of an image has 1 to {MAX_NAME} characters, no slash among them, and begins with no dot.",
        )
