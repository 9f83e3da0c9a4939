"""The routes for the next case: what is offered, skipped, and refused, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from medsegr.choosing import Chooser, Look
from medsegr.rounds.store import TurnStore
from medsegr.web.login.identity import SCOPE_KEY, User
from medsegr.web.next import next_router

IMAGES = ["1.2.1", "1.2.2", "1.2.3"]


@pytest.fixture
def chooser(tmp_path: Path) -> Iterator[Chooser]:
    store = TurnStore(tmp_path)
    yield Chooser(store.database, tmp_path, lambda: "v1")
    store.dispose()


@pytest.fixture
def client(chooser: Chooser) -> TestClient:
    app = FastAPI()
    about = {"1.2.2": {"StudyInstanceUID": "1.2", "PatientID": "secret"}}
    known = [*IMAGES, "labelled"]
    app.include_router(
        next_router(chooser, lambda: IMAGES, lambda image: image in known, lambda i: about.get(i, {}))
    )

    @app.middleware("http")
    async def anna(request, call_next):  # type: ignore[no-untyped-def]
        request.scope[SCOPE_KEY] = User("anna")
        return await call_next(request)

    return TestClient(app)


def test_the_next_case_has_a_reason_and_where_it_is(client: TestClient, chooser: Chooser) -> None:
    for image in IMAGES:
        chooser.looks.add(Look(image, "v1", (("liver", 0.9),), float(image == "1.2.2"), ("liver", 0.5)))
    reply = client.get("/medsegr/next", params={"strategy": "entropy"}).json()
    assert reply == {
        "image": "1.2.2",
        "strategy": "entropy",
        "study": "1.2",
        "why": "About 1.0 bits of the model's decisions about this image are open, most of all on liver (50%). "
        "It is the least sure of all 3 images.",
    }


def test_each_case_once_and_then_a_sentence(client: TestClient) -> None:
    replies = [client.get("/medsegr/next") for _ in range(4)]
    assert sorted(reply.json()["image"] for reply in replies[:3]) == IMAGES
    assert {reply.json()["strategy"] for reply in replies[:3]} == {"mixture"}
    assert (replies[3].status_code, replies[3].json()["detail"]) == (
        404,
        "All that is left (3 images) was opened within the last 30 minutes; please try again later.",
    )


def test_a_skipped_case_is_not_offered_until_that_is_taken_back(client: TestClient, chooser: Chooser) -> None:
    for image in IMAGES[:2]:
        assert client.post("/medsegr/skip", json={"image": image}).json() == {"image": image, "skipped": True}
    assert client.get("/medsegr/next").json()["image"] == IMAGES[2]
    assert client.get("/medsegr/next").status_code == 404
    undone = client.post("/medsegr/skip", json={"image": IMAGES[0], "undo": True})
    assert undone.json() == {"image": IMAGES[0], "skipped": False}
    assert client.get("/medsegr/next").json()["image"] == IMAGES[0]
    assert '"editor": "anna"' in chooser.skips.file.read_text()


def test_what_somebody_looks_at_is_offered_to_nobody(client: TestClient) -> None:
    for image in IMAGES[1:]:
        assert client.post("/medsegr/opened", json={"image": image}).json() == {
            "image": image,
            "minutes": 30.0,
        }
    assert client.get("/medsegr/next").json()["image"] == IMAGES[0]
    assert client.post("/medsegr/opened", json={"image": "labelled"}).status_code == 200


@pytest.mark.parametrize("route", ["/medsegr/skip", "/medsegr/opened"])
def test_what_cannot_be_skipped_or_opened(client: TestClient, chooser: Chooser, route: str) -> None:
    unknown = client.post(route, json={"image": "../../etc/passwd"})
    assert unknown.status_code == 404 and "no image of this id" in unknown.json()["detail"]
    for body in ({}, {"image": ""}, {"image": 7}, {"image": "x" * 1001}, []):
        reply = client.post(route, json=body)
        assert reply.status_code in (400, 422) and reply.json()["detail"].endswith(".")
    assert chooser.skips.images() == chooser.opened.images() == frozenset()


def test_an_unknown_strategy_names_those_that_exist(client: TestClient) -> None:
    for strategy in ("best", "x" * 100):
        reply = client.get("/medsegr/next", params={"strategy": strategy})
        assert reply.status_code == 422 and "random, foreground, entropy" in reply.json()["detail"]
    listed = client.get("/medsegr/strategies").json()
    assert [one["name"] for one in listed] == ["mixture", "random", "foreground", "entropy", "disagreement"]
