"""`POST /infer/{model}` as stock clients call it: the same request and reply as MONAI Label's, checked, and
without blocking.

Replaces the stock route, which runs the model on the event loop, logs every parameter and reads any path on
the server.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.params import Depends
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from medsegr.web.edge import SentenceRoute, answer
from medsegr.web.errors import Refusal
from medsegr.web.image_files import ImageFile
from medsegr.web.login.identity import current_user
from medsegr.web.requests import AskOptions, parse, parse_object
from medsegr.web.routes import MEDIA_TYPES, FindImage, file_reply
from medsegr.web.service import Outcome, Service

OUTPUTS = ("all", "json", "image")
UPLOADS = (".nii.gz", ".nii", ".nrrd", ".png", ".jpg", ".jpeg", ".dcm")
KEPT = (
    "turn_id",
    "image",
    "stack",
    "outcome",
    "label_names",
    "model_version",
    "weights_licence",
    "latencies",
)
MAX_UPLOAD = 4 * 2**30

SaveLabel = Callable[[str, Path, str, dict[str, Any]], None]
"""(image id, label file, tag, info): keep a label map in the datastore."""


def infer_router(
    service: Service,
    find: FindImage,
    models: dict[str, bool],
    save_label: SaveLabel,
    guards: Sequence[Depends] = (),
) -> APIRouter:
    """The router; arguments as for `routes.ask_router`."""
    router = APIRouter(prefix="/infer", tags=["Infer"], route_class=SentenceRoute)

    @router.post("/{model}", summary="Ask a question (MONAI Label's form)", dependencies=list(guards))
    async def infer(
        request: Request,
        model: str,
        image: str = "",
        session_id: str = "",
        output: str = "all",
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        label: Annotated[UploadFile | None, File()] = None,
    ) -> Response:
        if model not in models:
            raise Refusal(404, f"There is no model of this name; known are {', '.join(models)}.")
        if output not in OUTPUTS:
            raise Refusal(422, f"`output` must be one of {', '.join(OUTPUTS)}.")
        options = parse(AskOptions, parse_object(params or "{}", "`params`"))
        with tempfile.TemporaryDirectory(prefix="medsegr-") as name:
            folder = Path(name)
            if file is not None and not session_id:
                found = await run_in_threadpool(receive, file.file, file.filename or "", folder)
            else:
                found = await run_in_threadpool(find, image, session_id)
            editor = current_user(request).name
            outcome = await answer(service, options, found, one_slice=models[model], editor=editor)
            return await run_in_threadpool(
                _reply, service, outcome, options, found, folder, output, model, save_label
            )

    @router.post("/wsi/{model}", include_in_schema=False)
    @router.post("/wsi_v2/{model}", include_in_schema=False)
    async def whole_slide(model: str) -> Response:
        raise Refusal(
            404, "This app has no model for whole-slide images; `/infer/{model}` takes images and volumes."
        )

    return router


def receive(stream: BinaryIO, name: str, folder: Path) -> ImageFile:
    """Store an upload under a name of ours; its id is its content's hash. Raises `Refusal` 413 or 422."""
    extension = next((e for e in UPLOADS if name.lower().endswith(e)), None)
    if extension is None:
        raise Refusal(422, f"The uploaded file must be of one of the types {', '.join(UPLOADS)}.")
    path, digest, size = folder / f"upload{extension}", hashlib.sha256(), 0
    with path.open("wb") as target:
        while chunk := stream.read(1 << 20):
            size += len(chunk)
            if size > MAX_UPLOAD:
                raise Refusal(413, f"The uploaded file is larger than {MAX_UPLOAD // 2**30} GiB.")
            digest.update(chunk)
            target.write(chunk)
    return ImageFile(f"upload-{digest.hexdigest()[:32]}", path)


def _reply(
    service: Service,
    outcome: Outcome,
    options: AskOptions,
    image: ImageFile,
    folder: Path,
    output: str,
    model: str,
    save_label: SaveLabel,
) -> Response:
    if output == "json" and not options.save_label:
        return JSONResponse(outcome.params)
    out = folder / "reply"
    out.mkdir()
    # Only stock OHIF asks for the file alone, and it knows nothing but the labels of /info.
    path = service.write_map(outcome, image, out, options.result_extension, fixed=output == "image")
    extension = next(e for e in MEDIA_TYPES if path.name.endswith(e))
    if options.save_label and not re.match(r"(upload|session)-", image.id):
        save_label(image.id, path, options.label_tag, label_info(model, outcome.params))
    if output == "json":
        return JSONResponse(outcome.params)
    if output == "image":
        return file_reply(path, extension)
    return _multipart(outcome.params, path, extension)


def label_info(model: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept with a reply's label map. Everybody sees labels, so the words of the answer, which belong to whoever
    asked, are not among it.
    """
    return {"model": model, "params": {key: params[key] for key in KEPT if key in params}}


def _multipart(params: dict[str, Any], path: Path, extension: str) -> Response:
    """The two parts `params` and `image`, as MONAI Label sends them."""
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\n'
        "Content-Type: application/json\r\n\r\n"
        f"{json.dumps(params)}\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n'
        f"Content-Type: {MEDIA_TYPES[extension]}\r\n\r\n"
    )
    body = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")
