"""The routes of the review page over a real file: what reviewers get to see, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image
from scipy import ndimage

from medsegr.imaging import COLOURS
from medsegr.qa.review.queue import ReviewQueue
from medsegr.web.errors import Refusal
from medsegr.web.login.identity import SCOPE_KEY, User
from medsegr.web.review import review_app, review_router
from tests.review_files import write_review_file

BASE = "http://localhost/medsegr/review/"
EDITED = [{"question": "Outline the spleen, please.", "answer": "The <p>spleen</p> [SEG] lies on the left."}]


@pytest.fixture
def queue(tmp_path: Path) -> ReviewQueue:
    return ReviewQueue(write_review_file(tmp_path / "set"))


@pytest.fixture
def client(queue: ReviewQueue) -> Iterator[TestClient]:
    with TestClient(review_app(queue, "Ada"), base_url=BASE) as made:
        yield made


Judge = Callable[..., Response]


@pytest.fixture
def judge(client: TestClient) -> Judge:
    def post(id_: str, reviewer: str, verdict: str, **more: Any) -> Response:
        return client.post("verdicts", json={"id": id_, "reviewer": reviewer, "verdict": verdict, **more})

    return post


def item(client: TestClient, id_: str, reviewer: str) -> dict[str, Any]:
    reply = client.get("item", params={"id": id_, "reviewer": reviewer})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_the_page_and_its_files_are_served_and_name_no_other_server(client: TestClient) -> None:
    assert client.get("http://localhost/", follow_redirects=False).headers["location"] == "/medsegr/review"
    page = client.get("http://localhost/medsegr/review")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("http://localhost/medsegr/review/").url.path == "/medsegr/review"
    for name, kind in (
        ("review.css", "text/css"),
        *((f"{n}.js", "text/javascript") for n in ("api", "dialogue", "picture", "review")),
    ):
        reply = client.get(f"static/{name}")
        assert reply.status_code == 200 and reply.headers["content-type"].startswith(kind)
        assert "http://" not in reply.text and "https://" not in reply.text
    assert "http" not in page.text
    for name in ("nothing.js", "..%2Freview.py", "%2e%2e%2f%2e%2e%2freview.py", "__init__.py"):
        assert client.get(f"static/{name}").status_code == 404


def test_another_host_name_is_refused_unless_the_server_is_open(queue: ReviewQueue) -> None:
    rebound = {"Host": "evil.example"}
    with TestClient(review_app(queue), base_url=BASE) as local:
        assert local.get("state", headers=rebound).status_code == 400
    with TestClient(review_app(queue, only_local=False), base_url=BASE) as opened:
        assert opened.get("state", headers=rebound).status_code == 200


def test_who_is_logged_in_reviews_in_their_own_name(queue: ReviewQueue) -> None:
    inner = review_app(queue, "Ada", only_local=False)

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, SCOPE_KEY: User("grace")}, receive, send)

    client = TestClient(guarded, base_url=BASE)
    state = client.get("state").json()
    assert (state["reviewer"], state["logged_in"]) == ("grace", True)
    reply = client.post("verdicts", json={"id": "liver", "reviewer": "Ada", "verdict": "accept"})
    assert reply.json()["entry"]["reviewer"] == "grace"
    assert [entry.reviewer for entry in queue.log.entries()] == ["grace"]
    assert client.get("item", params={"id": "liver", "reviewer": "Ada"}).json()["own"]["verdict"] == "accept"


def test_an_item_has_everything_that_the_page_shows(client: TestClient) -> None:
    state = client.get("state").json()
    assert state == {
        "file": "qa.jsonl", "total": 4, "first": "liver", "reviewer": "Ada", "logged_in": False, "done": {},
    }  # fmt: skip
    found = item(client, "liver", "Ada")
    assert [t["question"] for t in found["turns"]] == [
        "Which organ here makes bile?",
        "Where are the kidneys?",
    ]
    assert found["targets"] == [
        {"label": "liver", "colour": "#e69f00"},
        {"label": "right kidney", "colour": "#56b4e9"},
        {"label": "left kidney", "colour": "#009e73"},
    ]
    assert found["view"] == {"aspect": 1.0, "slices": 1, "first": 0} and found["trouble"] is None
    assert (found["position"], found["previous"], found["next"]) == (1, None, "spleen")
    assert (found["own"], found["others"]) == (None, [])
    assert found["progress"] == {"total": 4, "accepted": 0, "edited": 0, "rejected": 0}


def test_accept_edit_reject_and_what_is_next(client: TestClient, judge: Judge, queue: ReviewQueue) -> None:
    reply = judge("liver", "Ada", "accept").json()
    assert reply["next"] == "spleen" and reply["progress"]["accepted"] == 1
    reply = judge("spleen", "Ada", "edit", turns=EDITED, note="shorter").json()
    assert reply["entry"]["after"] == EDITED and reply["entry"]["note"] == "shorter"
    assert judge("hippocampus", "Ada", "reject").json()["next"] == "aorta"
    reply = judge("aorta", "Ada", "accept").json()
    before = [{"question": "Show the aorta.", "answer": "The <p>aorta</p> [SEG] lies before the spine."}]
    assert (reply["next"], reply["entry"]["before"], reply["entry"]["after"]) == (None, before, None)
    assert reply["progress"] == {"total": 4, "accepted": 2, "edited": 1, "rejected": 1}
    lines = [json.loads(line) for line in queue.log.path.read_text().splitlines()]
    assert [(e["id"], e["verdict"]) for e in lines] == [
        ("liver", "accept"), ("spleen", "edit"), ("hippocampus", "reject"), ("aorta", "accept"),
    ]  # fmt: skip
    assert client.get("next", params={"reviewer": "Ada", "after": "liver"}).json() == {"id": None}
    assert client.get("next", params={"reviewer": "Bob", "after": "liver"}).json() == {"id": "spleen"}


def test_two_reviewers_do_not_see_each_other_before_their_own_verdict(
    client: TestClient, judge: Judge
) -> None:
    judge("spleen", "Ada", "edit", turns=EDITED)
    seen = client.get("item", params={"id": "spleen", "reviewer": "Bob"})
    assert seen.json()["others"] == [] and "Ada" not in seen.text and "please" not in seen.text
    assert client.get("state").json()["done"] == {"Ada": 1}  # how many, not what
    judge("spleen", "bob", "accept")
    others = item(client, "spleen", "bob")["others"]
    assert [(e["reviewer"], e["verdict"], e["after"]) for e in others] == [("Ada", "edit", EDITED)]
    assert [e["reviewer"] for e in item(client, "spleen", "ada")["others"]] == ["bob"]


def test_a_bad_edit_is_a_sentence_and_nothing_is_written(judge: Judge, queue: ReviewQueue) -> None:
    reply = judge("spleen", "Ada", "edit", turns=[{"question": "Outline it.", "answer": "The spleen."}])
    assert reply.status_code == 422
    assert reply.json() == {
        "detail": "The edit cannot be kept: turn 1: the answer has 0 [SEG] for 1 targets."
    }
    assert not queue.log.path.exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "elsewhere"}, 404),
        ({"id": "../set/qa.jsonl"}, 404),
        ({"verdict": "maybe"}, 422),
        ({"verdict": None}, 422),
        ({"verdict": "edit"}, 422),
        ({"turns": EDITED}, 422),
        ({"verdict": "edit", "turns": []}, 422),
        ({"verdict": "edit", "turns": EDITED * 2}, 422),
        ({"verdict": "edit", "turns": [{"question": "Outline the spleen."}]}, 422),
        ({"verdict": "edit", "turns": [{**EDITED[0], "targets": []}]}, 422),
        ({"verdict": "edit", "turns": [{**EDITED[0], "question": "q" * 2001}]}, 422),
        ({"reviewer": ""}, 422),
        ({"reviewer": "   "}, 422),
        ({"reviewer": "x" * 61}, 422),
        ({"reviewer": "a\u0007b"}, 422),
        ({"reviewer": 7}, 422),
        ({"note": "n" * 2001}, 422),
        ({"log": "/tmp/elsewhere"}, 422),
    ],
)
def test_bad_verdicts_are_one_sentence(
    client: TestClient, queue: ReviewQueue, body: dict[str, Any], status: int
) -> None:
    good = {"id": "spleen", "reviewer": "Ada", "verdict": "accept"}
    reply = client.post("verdicts", json=good | body)
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"detail"} and reply.json()["detail"].endswith(".")
    assert queue.log.entries() == []


@pytest.mark.parametrize(
    "body", ["{", "[]", '"x"', "", '{"id": "spleen", "reviewer": "\\ud800", "verdict": "accept"}']
)
def test_what_is_no_verdict_is_one_sentence(client: TestClient, body: str) -> None:
    reply = client.post("verdicts", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422 and reply.json()["detail"].endswith(".")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("item?id=elsewhere&reviewer=Ada", 404),
        ("item?id=spleen", 422),
        ("item?id=spleen&reviewer=%20", 422),
        ("item?reviewer=Ada", 422),
        ("next?reviewer=Ada&after=elsewhere", 404),
        ("next", 422),
        ("image?id=elsewhere", 404),
        ("image?id=images/a.png", 404),
        ("image?id=spleen&k=-1", 422),
        ("outline?id=spleen&target=1", 404),
        ("outline?id=spleen&target=-1", 422),
        ("outline?id=spleen&target=one", 422),
        ("outline?id=elsewhere&target=0", 404),
        ("nothing", 404),
    ],
)
def test_bad_questions_are_one_sentence(client: TestClient, path: str, status: int) -> None:
    reply = client.get(path)
    assert reply.status_code == status
    if path != "nothing":
        assert set(reply.json()) == {"detail"} and reply.json()["detail"].endswith(".")


def picture(reply: Response) -> np.ndarray:
    assert reply.status_code == 200 and reply.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(reply.content)))


def test_pictures_have_the_images_pixels_and_the_masks_outline(
    client: TestClient, queue: ReviewQueue
) -> None:
    stored = np.asarray(Image.open(queue.root / "images" / "a.png"))
    assert np.array_equal(picture(client.get("image?id=liver")), stored[..., 0])
    labels = np.asarray(Image.open(queue.root / "masks" / "a.png"))
    drawn = picture(client.get("outline?id=liver&target=2"))
    assert drawn.shape == (1024, 1024, 4)
    fine = np.kron(labels == 7, np.ones((2, 2), bool))
    assert np.array_equal(drawn[..., 3] > 0, fine)
    assert (drawn[fine, :3] == COLOURS[2]).all()
    rim = drawn[..., 3] == 255
    assert np.array_equal(
        rim, fine & (ndimage.distance_transform_cdt(fine, "taxicab") <= 3)
    )  # three pixels wide


def test_an_image_that_cannot_be_read_is_said_and_may_be_rejected(
    client: TestClient, judge: Judge, queue: ReviewQueue
) -> None:
    (queue.root / "images" / "a.png").write_bytes(b"nothing")
    found = item(client, "liver", "Ada")
    assert found["view"] is None and found["trouble"].startswith("a.png is damaged")
    assert str(queue.root) not in found["trouble"]
    reply = client.get("image?id=liver")
    assert reply.status_code == 422 and reply.json()["detail"].startswith("a.png is damaged")
    assert judge("liver", "Ada", "reject").status_code == 200


def test_without_a_file_every_path_is_404_with_a_sentence() -> None:
    app = FastAPI()
    app.include_router(review_router(None))
    with TestClient(app) as client:
        replies = [
            client.get(f"/medsegr/review{path}")
            for path in ("", "/state", "/item?id=a&reviewer=b", "/static/review.js")
        ]
        replies.append(client.post("/medsegr/review/verdicts", json={}))
    assert {reply.status_code for reply in replies} == {404}
    assert {reply.json()["detail"] for reply in replies} == {
        "No file is under review on this server; name one with `--conf review FILE`."
    }


def test_guards_stand_before_what_the_file_says(queue: ReviewQueue) -> None:
    def no_one() -> None:
        raise Refusal(401, "Log in first.")

    app = FastAPI()
    app.include_router(review_router(queue, guards=[Depends(no_one)]))
    with TestClient(app, base_url=BASE) as client:
        for path in (
            "state",
            "next?reviewer=A",
            "item?id=liver&reviewer=A",
            "image?id=liver",
            "outline?id=liver&target=0",
        ):
            assert client.get(path).status_code == 401
        body = {"id": "liver", "reviewer": "Ada", "verdict": "accept"}
        assert client.post("verdicts", json=body).status_code == 401
    assert queue.log.entries() == []
