"""`/proxy/dicom/{qido,wado,stow}/...`: a folder of DICOM files as viewers expect a PACS, with nothing else installed.

QIDO-RS, WADO-RS and STOW-RS of PS3.18 as far as OHIF, 3D Slicer and `dicomweb_client` use them. Reading runs in the thread
pool, so that a large series never holds up the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.params import Depends as Guard
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from medsegr.dicom.folder import DicomFolder
from medsegr.dicom.frames import as_delivered, load_header
from medsegr.dicom.headers import Header
from medsegr.dicom.qido import Level, QueryError, parse_query, search
from medsegr.dicom.stow import DICOM, StowError, reply, split_upload
from medsegr.dicom.wado import media_parameters, to_dicom_json
from medsegr.web.dicomweb_edge import JSON, NO_STORE, PREFIX, expect_json, instances, root_of, url_of
from medsegr.web.dicomweb_files import add_files
from medsegr.web.edge import SentenceRoute
from medsegr.web.errors import Refusal

MAX_UPLOAD = 1 << 30
PIECE = 1 << 20


def dicomweb_router(
    folder: DicomFolder, guards: Sequence[Guard] = (), max_upload: int = MAX_UPLOAD
) -> APIRouter:
    """The routes over one folder. `guards` are dependencies of them all, `max_upload` the bytes of one STOW request."""
    router = APIRouter(
        prefix=f"{PREFIX}/{{root}}",
        route_class=SentenceRoute,
        include_in_schema=False,
        dependencies=[*guards, Depends(root_of)],
    )
    scopes: dict[str, tuple[Level, ...]] = {
        "/studies": (Level.STUDY,),
        "/series": (Level.STUDY, Level.SERIES),
        "/instances": (Level.STUDY, Level.SERIES, Level.INSTANCE),
        "/studies/{study}/series": (Level.SERIES,),
        "/studies/{study}/instances": (Level.SERIES, Level.INSTANCE),
        "/studies/{study}/series/{series}/instances": (Level.INSTANCE,),
    }
    for path, levels in scopes.items():
        router.add_api_route(path, _search(folder, levels), methods=["GET"])
    metadata = _metadata(folder)
    for path in ("", "/series/{series}", "/series/{series}/instances/{sop}"):
        router.add_api_route(f"/studies/{{study}}{path}/metadata", metadata, methods=["GET"])
    add_files(router, folder)
    upload = _upload(folder, max_upload)
    for path in ("/studies", "/studies/{study}"):
        router.add_api_route(path, upload, methods=["POST"])
    return router


def closed_router(guards: Sequence[Guard] = ()) -> APIRouter:
    """Refuses everything below `/proxy`: mounted last, so that nothing falls through to routes that forward any path."""
    router = APIRouter(
        prefix="/proxy", route_class=SentenceRoute, include_in_schema=False, dependencies=list(guards)
    )

    def refuse() -> Response:
        raise Refusal(
            404, f"There is no such DICOMweb resource; GET {PREFIX}/qido/studies lists the studies."
        )

    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    router.add_api_route("/{path:path}", refuse, methods=methods)
    return router


def _search(folder: DicomFolder, levels: tuple[Level, ...]) -> Callable[..., Response]:
    """The last of `levels` is what is searched for, those before it are described in each result as well."""

    def find(request: Request) -> Response:
        expect_json(request)
        try:
            query = parse_query(request.query_params.multi_items())
        except QueryError as error:
            raise Refusal(400, str(error)) from error
        within = instances(folder, request) if "study" in request.path_params else folder.index().headers
        found = search(levels[-1], within, query, levels[:-1], url_of(request))
        headers = dict(NO_STORE)
        if query.unsearched:
            headers["Warning"] = (
                f'299 medsegr "These attributes were not searched: {", ".join(query.unsearched)}"'
            )
        return Response(json.dumps(found, ensure_ascii=False), media_type=JSON, headers=headers)

    return find


def _metadata(folder: DicomFolder) -> Callable[..., Response]:
    def metadata(request: Request) -> Response:
        expect_json(request)
        found = instances(folder, request)
        return StreamingResponse(_described(found, url_of(request)), media_type=JSON, headers=NO_STORE)

    return metadata


def _described(headers: Sequence[Header], url: str) -> Iterator[bytes]:
    """A JSON array, one instance at a time; a file that has gone or broken since it was indexed is left out."""
    separator = b"["
    for header in headers:
        described = _describe(header, url)
        if described is not None:
            yield separator + json.dumps(described, ensure_ascii=False).encode()
            separator = b","
    yield b"[]" if separator == b"[" else b"]"


def _describe(header: Header, url: str) -> dict[str, Any] | None:
    try:
        dataset = load_header(header.path)
        as_delivered(dataset)
    # Broad on purpose: the file may have been replaced by anything since it was indexed.
    except Exception:  # noqa: BLE001
        return None
    place = f"{url}/studies/{header.study}/series/{header.series}/instances/{header.sop}/bulkdata"
    return to_dicom_json(dataset, place)


def _upload(folder: DicomFolder, max_upload: int) -> Callable[..., Any]:
    async def upload(request: Request) -> Response:
        expect_json(request)
        content_type = request.headers.get("content-type", "")
        kind = media_parameters(content_type)
        if kind.get("") != "multipart/related" or kind.get("type", DICOM).lower() != DICOM:
            raise Refusal(415, f'The upload is not multipart/related; type="{DICOM}", which is expected.')
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > max_upload:
            raise Refusal(
                413, f"An upload may have {max_upload} bytes at most; send fewer instances at a time."
            )
        with await run_in_threadpool(folder.upload_folder) as name:
            await _receive(request, Path(name) / "body", max_upload)
            status, body = await run_in_threadpool(_take, folder, Path(name), content_type, request)
        return Response(json.dumps(body), status_code=status, media_type=JSON, headers=NO_STORE)

    return upload


async def _receive(request: Request, path: Path, max_upload: int) -> None:
    """Write the request's body to a file, a piece at a time; raises `Refusal` 413 as soon as it is too long."""
    received, piece = 0, bytearray()
    with await run_in_threadpool(path.open, "wb") as stream:
        async for chunk in request.stream():
            received += len(chunk)
            if received > max_upload:
                raise Refusal(
                    413, f"An upload may have {max_upload} bytes at most; send fewer instances at a time."
                )
            piece += chunk
            if len(piece) >= PIECE:
                await run_in_threadpool(stream.write, bytes(piece))
                piece.clear()
        await run_in_threadpool(stream.write, bytes(piece))


def _take(
    folder: DicomFolder, place: Path, content_type: str, request: Request
) -> tuple[int, dict[str, object]]:
    parts = place / "parts"
    parts.mkdir()
    try:
        with (place / "body").open("rb") as body:
            files = split_upload(body, content_type, parts)
    except StowError as error:
        raise Refusal(400, str(error)) from error
    (place / "body").unlink()
    return reply(folder.store_files(files, request.path_params.get("study", "")), url_of(request))
