"""`GET /medsegr/series/{uid}`: which image shows which plane of a mask, so that a viewer never has to guess an order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.params import Depends

from medsegr.imaging.dicom_series import Stack
from medsegr.web.edge import SentenceRoute
from medsegr.web.errors import Refusal
from medsegr.web.image_files import ImageFile


def series_router(find: Callable[[str], ImageFile], guards: Sequence[Depends] = ()) -> APIRouter:
    """The router; `find` resolves an image id of the datastore and raises `Refusal`."""
    router = APIRouter(prefix="/medsegr/series", tags=["MedSeg-R"], route_class=SentenceRoute)

    @router.get(
        "/{uid}", summary="The stacks of a DICOM series, and their images by plane", dependencies=list(guards)
    )
    def series(uid: str) -> dict[str, Any]:
        image = find(uid)
        if not image.stacks:
            raise Refusal(404, "This image is no DICOM series; it has no instances.")
        return {"series": image.id, "stacks": [described(n, s) for n, s in enumerate(image.stacks, start=1)]}

    return router


def described(n: int, stack: Stack) -> dict[str, Any]:
    """A stack as clients get it; `instances[k]` is what plane k of a mask shows."""
    return {
        "n": n,
        "modality": stack.modality,
        "body_part": stack.body_part,
        "shape": list(stack.shape),
        "instances": [{"sop": slice_.sop_uid, "frame": slice_.frame} for slice_ in stack.slices],
    }
