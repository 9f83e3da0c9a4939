"""`/medsegr/withdrawals`, `/medsegr/patients/removals`: take back what must not be learnt from, as `medsegr state withdraw` and
`medsegr state remove-patient` do. For administrators; a patient is named in a body only, never in an address, a log or a reply.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.params import Depends as Dependency
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from medsegr.rounds.database import Database
from medsegr.rounds.removals import remove_named, remove_shown
from medsegr.rounds.withdrawals import InUse, Removal, read_time, withdraw_all, withdraw_editor, withdrawals
from medsegr.web.errors import Refusal
from medsegr.web.login.identity import current_user
from medsegr.web.loop import MAX_REASON, LearningLoop
from medsegr.web.routes import TURN_ID, body_schema, json_body, listing_limit

MAX_NAME = 1000
MAX_CORRECTIONS = 1000
FOR_ADMINISTRATORS = "Only an administrator may take back what the model learns from."
WHICH = "Name corrections with `corrections`, or an editor with `editor`: one of both is expected."
WHOM = (
    "Name the patient with `patient`, or one of the patient's images with `image`: one of both is expected."
)


def _text(value: Any, limit: int) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value.strip()) <= limit
        and not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)
    )


def _name(value: Any) -> Any:
    if value is not None and not _text(value, MAX_NAME):
        raise ValueError(f"A name must be a text of 1 to {MAX_NAME} characters.")
    return value.strip() if value is not None else None


def _why(value: Any) -> Any:
    if not _text(value, MAX_REASON):
        raise ValueError(f"`why` must say in 1 to {MAX_REASON} characters why these corrections are out.")
    return value.strip()


def _id(value: str) -> str:
    if not TURN_ID.fullmatch(value):
        raise ValueError(
            "A correction's id has 32 hexadecimal digits; `GET /medsegr/corrections` lists those that exist."
        )
    return value


def _since(value: Any) -> Any:
    return None if value is None else read_time(value if isinstance(value, str) else "")


Name = Annotated[str | None, BeforeValidator(_name)]


class WithdrawalBody(BaseModel):
    """The body of `POST /medsegr/withdrawals`: corrections by their ids, or all that an editor sent so far, or did `since`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    why: Annotated[str, BeforeValidator(_why)]
    editor: Name = None
    since: Annotated[
        datetime | None,
        BeforeValidator(_since),
        Field(description="With `editor`: from this date or time on, UTC where it names no zone."),
    ] = None
    corrections: tuple[Annotated[str, AfterValidator(_id)], ...] = Field((), max_length=MAX_CORRECTIONS)


class RemovalBody(BaseModel):
    """The body of `POST /medsegr/patients/removals`: `patient` as DICOM, `patients.csv` or an image of its own names the
    patient, or `image`, the id of one of the patient's images that was corrected."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    patient: Name = None
    image: Name = None


def add_withdrawals(router: APIRouter, loop: LearningLoop, admins: list[Dependency]) -> None:
    """Add the routes to the learning loop's router; `admins` are the dependencies of all of them, beside a check of the user who
    logged in."""
    admins = [Depends(_administrator), *admins]

    @router.get(
        "/withdrawals", summary="Corrections that are used no more, oldest first", dependencies=admins
    )
    def listed(limit: int = 200) -> list[dict[str, Any]]:
        return [asdict(found) for found in withdrawals(_database(loop), listing_limit(limit))]

    @router.post("/withdrawals", status_code=201, summary="Use corrections, or those of an editor, no more",
                 dependencies=admins, openapi_extra=body_schema(WithdrawalBody, required=True))  # fmt: skip
    async def add(request: Request) -> dict[str, Any]:
        body = await json_body(request, WithdrawalBody)
        return _told(await run_in_threadpool(_withdraw, loop, body, current_user(request).name))

    @router.post("/patients/removals", status_code=201, summary="Delete what is kept of a patient",
                 dependencies=admins, openapi_extra=body_schema(RemovalBody, required=True))  # fmt: skip
    async def remove(request: Request) -> dict[str, Any]:
        body = await json_body(request, RemovalBody)
        return _told(await run_in_threadpool(_remove, loop, body, current_user(request).name))


def _administrator(request: Request) -> None:
    if not current_user(request).admin:
        raise Refusal(403, FOR_ADMINISTRATORS)


def _withdraw(loop: LearningLoop, body: WithdrawalBody, by: str) -> Removal:
    if (body.editor is None) == (not body.corrections):
        raise Refusal(422, WHICH)
    if body.editor is not None:
        return withdraw_editor(_database(loop), body.editor, by, body.why, body.since)
    if body.since is not None:
        raise Refusal(422, "`since` goes with `editor`; corrections are named by their ids alone.")
    return withdraw_all(_database(loop), body.corrections, by, body.why)


def _remove(loop: LearningLoop, body: RemovalBody, by: str) -> Removal:
    try:
        if body.patient is not None and body.image is None:
            return remove_named(_database(loop), body.patient, by)
        if body.image is not None and body.patient is None:
            return remove_shown(_database(loop), body.image, by)
    except InUse as error:
        raise Refusal(409, str(error)) from error
    raise Refusal(422, WHOM)


def _told(removal: Removal) -> dict[str, Any]:
    return {
        "corrections": list(removal.corrections),
        "versions": list(removal.versions),
        "rounds": list(removal.rounds),
    }


def _database(loop: LearningLoop) -> Database:
    return loop.registry.database
