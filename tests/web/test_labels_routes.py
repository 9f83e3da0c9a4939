"""The label list over HTTP: what the model knows, and what clinicians say of what they added."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from learning_server import LearningServer

from medsegr.qa.facts import KnowledgeBase, plain_concept
from medsegr.rounds.audit import Audit
from medsegr.web.login.identity import User

BASE = {
    "optic disc": plain_concept("optic disc", ["optic nerve head"], "in the retina"),
    "spleen": plain_concept("spleen", ["milt"]),
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LearningServer]:
    from medsegr.web import labels

    monkeypatch.setattr(labels, "load_knowledge", lambda: KnowledgeBase(BASE))
    labels._words.cache_clear()
    made = LearningServer(tmp_path)
    made.user = User("anna")
    yield made
    made.close()
    labels._words.cache_clear()


def listed(server: LearningServer) -> dict[str, dict[str, Any]]:
    reply = server.client.get("/medsegr/labels")
    assert reply.status_code == 200
    return {label["name"]: label for label in reply.json()["labels"]}


def test_the_list_says_what_ships_and_what_the_model_knows(server: LearningServer) -> None:
    server.loop.labels.add("optic disc", {}, "server")
    found = listed(server)
    assert list(found) == ["liver", "gallbladder", "spleen", "kidney", "optic disc"]
    assert [label["id"] for label in found.values()] == [1, 2, 3, 4, 5]
    liver, disc = found["liver"], found["optic disc"]
    assert (liver["origin"], liver["known"], liver["editor"]) == ("shipped", True, None)
    assert (disc["origin"], disc["known"], disc["editor"], disc["described"]) == (
        "added",
        False,
        "server",
        True,
    )
    assert disc["knowledge"] == {"names": [], "location": "", "facts": []}
    assert server.client.get("/medsegr/labels").json()["described"] == ["optic disc", "spleen"]


def test_a_structure_is_added_and_described_by_whoever_logged_in(server: LearningServer) -> None:
    body = {"name": " iris ", "names": ["Regenbogenhaut"], "location": "behind the cornea",
            "facts": ["It surrounds the pupil."]}  # fmt: skip
    added = server.client.post("/medsegr/labels", json=body)
    assert added.status_code == 201
    label = added.json()
    assert (label["id"], label["name"], label["origin"], label["known"]) == (5, "iris", "added", False)
    said = {"names": ["Regenbogenhaut"], "location": "behind the cornea", "facts": ["surrounds the pupil"]}
    assert label["knowledge"] == said and listed(server)["iris"] == label
    server.user = User("bob")
    for number in (10**20, -(10**20)):
        nobody = server.client.put(f"/medsegr/labels/{number}/knowledge", json={"facts": ["is coloured"]})
        assert nobody.status_code == 404
    told = server.client.put("/medsegr/labels/5/knowledge", json={"facts": ["is coloured"]})
    assert told.status_code == 200
    assert told.json()["knowledge"] == {"names": [], "location": "", "facts": ["is coloured"]}
    entries = [(e.editor, e.action, e.subject) for e in Audit(server.database).entries()]
    assert entries == [("anna", "label", "iris"), ("bob", "label_knowledge", "iris")]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "labels", {}, 422, "`name`"),
        ("POST", "labels", {"name": "  "}, 422, "1 to 64"),
        ("POST", "labels", {"name": "a [SEG]"}, 422, "must not hold"),
        ("POST", "labels", {"name": "x" * 65}, 422, "`name`"),
        ("POST", "labels", {"name": "iris", "colour": "blue"}, 422, "`colour`"),
        ("POST", "labels", {"name": "Liver"}, 409, "label 1 already"),
        ("POST", "labels", {"name": "Milt"}, 409, "means `spleen`"),
        ("POST", "labels", {"name": "iris", "names": ["optic nerve head"]}, 409, "means `optic disc`"),
        ("POST", "labels", {"name": "iris", "facts": ["surrounds the iris"]}, 422, "without its name"),
        ("POST", "labels", {"name": "iris", "facts": [7]}, 422, "facts"),
        ("PUT", "labels/5/knowledge", {"facts": [f"fact {n}" for n in range(11)]}, 422, "`facts`"),
        ("PUT", "labels/5/knowledge", {"name": "other"}, 422, "`name`"),
        ("PUT", "labels/5/knowledge", {"names": ["kidney"]}, 409, "means `kidney`"),
        ("PUT", "labels/5/knowledge", {"location": "<p>here</p>"}, 422, "must not hold"),
        ("PUT", "labels/1/knowledge", {"facts": ["is large"]}, 409, "ships with the model"),
        ("PUT", "labels/77/knowledge", {"facts": ["is large"]}, 404, "No label"),
        ("PUT", "labels/x/knowledge", {}, 422, "`label_id`"),
    ],
)
def test_what_cannot_be_used_is_refused_and_changes_nothing(
    server: LearningServer, method: str, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    server.client.post("/medsegr/labels", json={"name": "lens", "facts": ["focuses light"]})
    before = listed(server)
    reply = server.client.request(method, f"/medsegr/{path}", json=body)
    assert (reply.status_code, set(reply.json())) == (status, {"detail"}) and words in reply.json()["detail"]
    assert listed(server) == before
