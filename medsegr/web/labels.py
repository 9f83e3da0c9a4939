"""`/medsegr/labels`: the label list, what the model in charge knows of it, and what clinicians say of the structures that they
added. The next round makes questions and answers of it.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.params import Depends
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from medsegr.qa.facts import load_knowledge
from medsegr.rounds.errors import StoreError
from medsegr.rounds.knowledge import MAX_NAME, MAX_TEXT, MAX_TEXTS, knowledge_of
from medsegr.rounds.labels import SHIPPED, Label, LabelTaken, UnknownLabel
from medsegr.web.errors import Refusal
from medsegr.web.login.identity import current_user
from medsegr.web.loop import LearningLoop
from medsegr.web.routes import body_schema, json_body

Names = tuple[Annotated[str, Field(max_length=MAX_NAME)], ...]
Facts = tuple[Annotated[str, Field(max_length=MAX_TEXT)], ...]


class KnowledgeBody(BaseModel):
    """The body of `PUT /medsegr/labels/{id}/knowledge`, which takes the place of what was said before."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    names: Names = Field((), max_length=MAX_TEXTS, description="Synonyms.")
    location: str = Field("", max_length=MAX_TEXT, description='Completes "It lies ...".')
    facts: Facts = Field(
        (), max_length=MAX_TEXTS, description='Each completes "Which structure here ...?", such as "drains the aqueous humour".'
    )  # fmt: skip


class LabelBody(KnowledgeBody):
    """The body of `POST /medsegr/labels`."""

    name: str = Field(max_length=MAX_NAME)


def add_labels(router: APIRouter, loop: LearningLoop, guards: list[Depends]) -> None:
    """Add the routes to the learning loop's router; `guards` are the dependencies of all of them."""

    @router.get("/labels", summary="Every label, with what clinicians said of it", dependencies=guards)
    def labels() -> dict[str, Any]:
        return {"labels": _listed(loop), "described": sorted(load_knowledge().concepts)}

    @router.post("/labels", status_code=201, summary="Add a structure, and say what it is", dependencies=guards,
                 openapi_extra=body_schema(LabelBody, required=True))  # fmt: skip
    async def add(request: Request) -> Response:
        body = await json_body(request, LabelBody)
        editor = current_user(request).name
        return JSONResponse(await run_in_threadpool(_add, loop, body, editor), status_code=201)

    @router.put("/labels/{label_id}/knowledge", summary="Say what a structure is that was added here",
                dependencies=guards, openapi_extra=body_schema(KnowledgeBody, required=True))  # fmt: skip
    async def tell(request: Request, label_id: int) -> dict[str, Any]:
        body = await json_body(request, KnowledgeBody)
        editor = current_user(request).name
        return await run_in_threadpool(_tell, loop, label_id, body, editor)


def _listed(loop: LearningLoop) -> list[dict[str, Any]]:
    added = {label.name: label for label in loop.labels.added() if label.editor != SHIPPED}
    known = _known(loop)
    return [_entry(name, id_, added.get(name), known) for name, id_ in loop.labels.ids().items()]


def _add(loop: LearningLoop, body: LabelBody, editor: str) -> dict[str, Any]:
    said = body.model_dump(exclude={"name"})
    try:
        label = loop.labels.teach(body.name, said, editor, _words())
    except StoreError as error:
        raise _refusal(error) from error
    return _entry(label.name, label.id, label, _known(loop))


def _tell(loop: LearningLoop, label_id: int, body: KnowledgeBody, editor: str) -> dict[str, Any]:
    try:
        label = loop.labels.tell(label_id, body.model_dump(), editor, _words())
    except StoreError as error:
        raise _refusal(error) from error
    return _entry(label.name, label.id, label, _known(loop))


def _refusal(error: StoreError) -> Refusal:
    status = 409 if isinstance(error, LabelTaken) else 404 if isinstance(error, UnknownLabel) else 422
    return Refusal(status, str(error))


def _entry(name: str, id_: int, label: Label | None, known: frozenset[str]) -> dict[str, Any]:
    """A label as clients see it; `knowledge` is what clinicians said, beside the knowledge base."""
    said = knowledge_of(label.knowledge if label else {})
    return {
        "id": id_,
        "name": name,
        "origin": "added" if label else "shipped",
        "known": name.casefold() in known,
        "described": name in load_knowledge().concepts,
        "knowledge": {"names": said["names"], "location": said["location"], "facts": said["facts"]},
        "editor": label.editor if label else None,
        "created": label.created if label else None,
    }


def _known(loop: LearningLoop) -> frozenset[str]:
    """Case-folded names of what the version in charge outlines."""
    return frozenset(name.casefold() for name in loop.charge.version.targets)


@cache
def _words() -> dict[str, str]:
    """Case-folded names and synonyms of the knowledge base -> its structure; a name goes before a synonym."""
    concepts = load_knowledge().concepts
    synonyms = {word.casefold(): name for name, concept in concepts.items() for word in concept.synonyms}
    return {**synonyms, **{name.casefold(): name for name in concepts}}
