"""`PUT /datastore/label` as stock clients call it: checked before anything is saved, kept in MONAI Label's datastore,
and recorded as a correction of the last answer that this client had about the image.

Replaces the stock route, which saves whatever it gets, wherever the tag points, on the event loop.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.params import Depends
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from medsegr.errors import ImageError, MedSegRError
from medsegr.imaging import read_image
from medsegr.imaging.dicom_headers import files_below
from medsegr.imaging.dicom_series import stacks
from medsegr.imaging.label_reading import LabelMap, read_label_map, read_raw_labels
from medsegr.rounds.corrections import Correction, CorrectionStore, NewCorrection, NewFinding, Origin, Verdict
from medsegr.rounds.errors import StoreError
from medsegr.rounds.labels import markup_problem
from medsegr.rounds.store import Turn, TurnStore
from medsegr.web.correcting import MAX_LABEL, pack
from medsegr.web.edge import SentenceRoute
from medsegr.web.errors import Refusal
from medsegr.web.forms import Form, FormLimits, read_form
from medsegr.web.image_files import ImageFile
from medsegr.web.learning import Learner
from medsegr.web.login.identity import current_user
from medsegr.web.masks import Geometry, extension_for, label_names, write
from medsegr.web.requests import parse_object

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
FINAL = "final"
MAX_VALUE = 255
AT_ONCE = 2

GridsOf = Callable[[ImageFile], Sequence[Geometry]]
"""The grids of an image, the one that is asked about by default first; raises `MedSegRError`."""


@dataclass(frozen=True)
class LabelKeeper:
    """Where label maps are kept. `save` (image id, file, tag, info) gives the label's id and raises `Refusal`; `saved`
    (image id, label id) tells the app and gives what it wants to add to the reply.
    """

    save: Callable[[str, Path, str, dict[str, Any]], str]
    saved: Callable[[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Upload:
    """A request that was read: `names` maps a value of the map to the label it stands for."""

    image_id: str
    tag: str
    params: dict[str, Any]
    names: dict[int, str]
    client_id: str | None
    editor: str


def read_grids(image: ImageFile) -> Sequence[Geometry]:
    """The grid of a file, or of every stack of a DICOM series, from headers alone; raises `ImageError`."""
    if not image.path.is_dir():
        return [Geometry.of(read_image(image.path))]
    return [Geometry.of_stack(stack) for stack in stacks(files_below(image.path))]


def label_router(
    turns: TurnStore,
    corrections: CorrectionStore,
    find: Callable[[str], ImageFile],
    keeper: LabelKeeper,
    guards: Sequence[Depends] = (),
    grids_of: GridsOf = read_grids,
    limits: FormLimits | None = None,
    learner: Learner | None = None,
) -> APIRouter:
    """The router; `find` resolves an image id of the datastore and raises `Refusal`. `learner` hears of every correction
    once it counts.
    """
    router = APIRouter(prefix="/datastore", tags=["Datastore"], route_class=SentenceRoute)
    reading = asyncio.Semaphore(AT_ONCE)

    @router.put("/label", summary="Save a finished label (MONAI Label's form)", dependencies=list(guards))
    async def save_label(request: Request, image: str = "", tag: str = FINAL) -> Response:
        async with read_form(request, limits or FormLimits()) as form:
            text = await run_in_threadpool(form.text, "params")
            if set(form.files) != {"label"}:
                raise Refusal(422, "The form must have one file, in the field `label`.")
            if not TAG.fullmatch(tag or FINAL):
                raise Refusal(422, "`tag` must have 1 to 64 letters, digits, hyphens and underscores.")
            params = parse_object(text or "{}", "`params`")
            client, names, editor = _client(params), _names(params), current_user(request).name
            upload = Upload(image, tag or FINAL, params, names, client, editor)
            async with reading:
                label_id, stored = await run_in_threadpool(
                    _keep, turns, corrections, find, keeper, grids_of, upload, form
                )
                if learner:  # before the app hears of it, which may start to train
                    await run_in_threadpool(learner.learn, stored)
                told = await run_in_threadpool(keeper.saved, stored.image_id, label_id)
            reply = {**told, "image": stored.image_id, "label": label_id}
        return JSONResponse(reply)

    return router


def _keep(
    turns: TurnStore,
    corrections: CorrectionStore,
    find: Callable[[str], ImageFile],
    keeper: LabelKeeper,
    grids_of: GridsOf,
    upload: Upload,
    form: Form,
) -> tuple[str, Correction]:
    """Check everything; then masks on our disk, the label in the datastore, the correction's row, in this order, so
    that a failure leaves no correction of a label that was not saved. A failure of the last step is told to the
    client, whose second attempt takes the label's place. Gives the label's id and the correction.
    """
    image = find(upload.image_id)
    with tempfile.TemporaryDirectory(prefix="medsegr-") as name:
        folder = Path(name)
        path = folder / "upload"
        form.save("label", path)
        raw = (form.files["label"].filename or "").lower().endswith(".bin")
        labels, geometry = _read(path, grids_of(image), raw)
        values = _checked_values(labels.values, upload.names)
        turn = _on(turns, turns.last_answered(image.id, upload.client_id, upload.editor), geometry)
        new = _correction(upload, turn, values, geometry)
        file = folder / f"label{labels.suffix}"
        if labels.moved or labels.suffix == ".bin":
            file = folder / f"label{extension_for(None, image.path, geometry)}"
            write(file, values, geometry, image.path)
        else:
            path.rename(file)
        with corrections.prepared(new) as commit:
            label_id = keeper.save(image.id, file, upload.tag, upload.params | _place(turn))
            try:
                stored = commit()
            except SQLAlchemyError as error:
                raise Refusal(
                    500, "The label was saved, but not recorded as a correction; send it once more."
                ) from error
    return label_id, stored


def _on(turns: TurnStore, turn: Turn | None, geometry: Geometry) -> Turn | None:
    """The turn, if its masks lie on this grid: the last answer may have been about another stack of the series."""
    if turn is None:
        return None
    try:
        answered = turns.packed_masks(turn).geometry
    except StoreError:  # lost or damaged: no reason to refuse a label
        return turn
    return turn if not answered or Geometry.from_json(answered).fits(geometry) else None


def _place(turn: Turn | None) -> dict[str, int]:
    """{"stack": number} of the stack that the answer is about, {} where there is none."""
    number = turn.options.get("stack") if turn else None
    return {"stack": number} if isinstance(number, int) else {}


def _read(path: Path, grids: Sequence[Geometry], raw: bool) -> tuple[LabelMap, Geometry]:
    """The label map on the first grid that it fits; raises the first grid's `ImageError` if there is none."""
    refusals: list[MedSegRError] = []
    for geometry in grids:
        try:
            read = read_raw_labels if raw else read_label_map
            return read(path, geometry.reference()), geometry
        except ImageError as error:
            refusals.append(error)
    raise refusals[0] if refusals else Refusal(422, "The image has no grid that a label map could lie on.")


def _checked_values(values: NDArray[Any], names: dict[int, str]) -> NDArray[np.uint8]:
    """The map as uint8, each of whose values has a name; raises `Refusal` 422."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > MAX_VALUE:
        raise Refusal(422, f"The label map has values {lowest} to {highest}; 0 to {MAX_VALUE} are expected.")
    small = np.ascontiguousarray(values, np.uint8)  # once, for a comparison per label
    present = np.zeros(MAX_VALUE + 1, np.bool_)
    present[small.ravel()] = True
    unnamed = [value for value in np.flatnonzero(present).tolist() if value and value not in names]
    if unnamed:
        raise Refusal(422, f"The label map has the value {unnamed[0]}, which `label_info` does not name.")
    return small


def _correction(
    upload: Upload, turn: Turn | None, values: NDArray[np.uint8], geometry: Geometry
) -> NewCorrection:
    """Every label that has a name, also where nothing of it is in the map: that one is not present."""
    asked = (
        {name.casefold(): n for name, n in label_names([f["label"] for f in turn.findings]).items()}
        if turn
        else {}
    )
    findings: tuple[NewFinding, ...] = tuple(
        pack(asked.get(label.casefold()), label, values == value) for value, label in upload.names.items()
    )
    return NewCorrection(
        image_id=upload.image_id,
        editor=upload.editor,
        verdict=Verdict.EDITED,
        origin=Origin.DATASTORE,
        findings=findings,
        shape=geometry.shape,
        geometry=geometry.to_json(),
        turn_id=turn.id if turn else None,
        client_id=upload.client_id,
        model_version=turn.model_version if turn else None,
    )


def _client(params: dict[str, Any]) -> str | None:
    client = params.get("client_id") or None
    if client is not None and not (isinstance(client, str) and len(client) <= 200 and client.isprintable()):
        raise Refusal(422, "`client_id` must be text of at most 200 printable characters.")
    return client


def _names(params: dict[str, Any]) -> dict[int, str]:
    """Value -> label, from `label_info` [{name, idx}] or, without it, from a reply's `label_names`; raises `Refusal` 422."""
    listed = params.get("label_info")
    if listed is None and isinstance(params.get("label_names"), dict):
        listed = [{"name": name, "idx": value} for name, value in params["label_names"].items()]
    if listed is None:
        return {}
    if not isinstance(listed, list) or len(listed) > MAX_VALUE + 1:
        raise Refusal(422, f'`label_info` must be a list of at most {MAX_VALUE} entries {{"name", "idx"}}.')
    names: dict[int, str] = {}
    for entry in listed:
        name = entry.get("name") if isinstance(entry, dict) else None
        value = entry.get("idx") if isinstance(entry, dict) else None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_VALUE:
            raise Refusal(
                422, f"Each entry of `label_info` needs an `idx`, a whole number up to {MAX_VALUE}."
            )
        if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name.strip()) <= MAX_LABEL:
            raise Refusal(
                422, f"Each entry of `label_info` needs a `name` of 1 to {MAX_LABEL} printable characters."
            )
        if problem := markup_problem(name):
            raise Refusal(422, problem)
        if value in names or name.strip().casefold() in (known.casefold() for known in names.values()):
            raise Refusal(422, "`label_info` has a name or an `idx` twice; each is expected once.")
        names[value] = name.strip()
    names.pop(0, None)  # the background
    return names
