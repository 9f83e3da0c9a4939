"""Suggested questions fit the image, come from what the model was trained on, and are found by the real finder of names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from medsegr.qa.facts import load_knowledge
from medsegr.web.suggestions import EVERYTHING, fitting, suggest, suggestions_router

TARGETS = (
    "kidneys",
    "left kidney",
    "inferior vena cava",
    "liver",
    "hippocampus",
    "intracranial hemorrhage",
    "lungs",
    "teeth",
)


@pytest.mark.parametrize(
    ("modality", "body_part", "names"),
    [
        ("CT", "ABDOMEN", ["kidneys", "liver", "inferior vena cava", "left kidney"]),
        ("ct", "abdomenpelvis", ["kidneys", "liver", "inferior vena cava", "left kidney"]),
        ("CT", "HEAD", ["intracranial hemorrhage"]),
        ("MR", "BRAIN", ["hippocampus"]),
        ("CT", None, ["kidneys", "intracranial hemorrhage", "liver", "inferior vena cava", "left kidney"]),
        ("DX", "CHEST", ["lungs"]),
        ("PX", None, ["teeth"]),
        ("CT", "KNEE", []),
        ("PT", "ABDOMEN", []),
        (None, None, []),
    ],
)
def test_structures_fit_modality_and_body_part(
    modality: str | None, body_part: str | None, names: list[str]
) -> None:
    assert [concept.name for concept in fitting(TARGETS, modality, body_part)] == names


def test_the_first_question_describes_and_the_rest_name() -> None:
    questions = suggest(TARGETS, "CT", "ABDOMEN")
    kidneys = load_knowledge()["kidneys"]
    assert questions[1:] == ["Outline the liver.", "Outline the inferior vena cava.", EVERYTHING]
    assert kidneys.leak(questions[0]) is None
    fact = questions[0].removeprefix("Which structures here ").removesuffix("?")
    assert fact in [fact.text for fact in kidneys.training_facts]


def test_what_does_not_fit_leaves_one_question() -> None:
    assert suggest(TARGETS, "CT", "KNEE") == suggest((), "CT", "ABDOMEN") == [EVERYTHING]


def test_every_target_that_ships_is_suggested_somewhere() -> None:
    config = Path(__file__).resolve().parents[2] / "medsegr" / "weights" / "embedded" / "config.json"
    targets = json.loads(config.read_text())["targets"]
    shown = {
        c.name for m in ("CT", "MR", "US", "DX", "MG", "XC", "OP", "SM") for c in fitting(targets, m, None)
    }
    assert set(targets) & set(load_knowledge().concepts) == shown


def test_the_route_answers_and_refuses_in_a_sentence() -> None:
    app = FastAPI()
    app.include_router(suggestions_router(lambda: TARGETS))
    client = TestClient(app)
    reply = client.get("/medsegr/suggestions", params={"modality": "MR", "body_part": "BRAIN"})
    assert reply.json()["suggestions"] == suggest(TARGETS, "MR", "BRAIN")
    long = client.get("/medsegr/suggestions", params={"modality": "M" * 65})
    assert (long.status_code, long.json()["detail"]) == (
        422,
        "`modality` has 65 characters; at most 64 are accepted.",
    )
