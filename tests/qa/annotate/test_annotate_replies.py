"""Replies are JSON of one shape, in a code fence at most."""

from __future__ import annotations

import json

import pytest

from medsegr.qa.annotate.replies import BadReply, Descriptions, Dialogue, Verdict, parse_reply

BOTH = {"attribute": "makes bile", "location": "lies high"}
STEPS = ("observe", "reason", "segment", "follow_up")


def turns(*steps: str) -> str:
    return json.dumps({"turns": [{"step": s, "question": "q", "answer": "a"} for s in steps]})


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(BOTH),
        f"```json\n{json.dumps(BOTH, indent=1)}\n```",
        f"  ```\n{json.dumps(BOTH)}```\n",
        f"<think>The liver, I suppose. {{}}</think>\n{json.dumps(BOTH)}",
    ],
)
def test_json_is_read_with_or_without_a_fence(text: str) -> None:
    assert parse_reply(text, Descriptions) == Descriptions(**BOTH)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Here you are: " + json.dumps(BOTH), "Invalid JSON"),
        (json.dumps(BOTH)[:-5], "Invalid JSON"),
        (json.dumps({**BOTH, "note": "x"}), "note: Extra inputs"),
        (json.dumps({"attribute": "makes bile"}), "location: Field required"),
        (json.dumps({**BOTH, "location": 3}), "location: Input should be a valid string"),
        (json.dumps({**BOTH, "location": "  "}), "location: String should have at least 1"),
        (json.dumps({**BOTH, "location": "x" * 601}), "location: String should have at most 600"),
        ("[]", "Input should be an object"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, expected: str) -> None:
    with pytest.raises(BadReply) as error:
        parse_reply(text, Descriptions)
    assert expected.lower() in str(error.value).lower()


def test_a_dialogue_has_its_four_steps_in_order() -> None:
    assert len(parse_reply(turns(*STEPS), Dialogue).turns) == 4
    for wrong in (STEPS[:3], STEPS[::-1], ()):
        with pytest.raises(BadReply, match="expected observe, reason, segment, follow_up"):
            parse_reply(turns(*wrong), Dialogue)


def test_a_revision_brings_its_turns_and_nothing_else_does() -> None:
    rewritten = [{"question": "q", "answer": "a"}]
    good = {"verdict": "revise", "reason": "r", "turns": rewritten}
    assert parse_reply(json.dumps(good), Verdict).turns[0].question == "q"
    for wrong in ({"verdict": "revise", "reason": "r"}, {**good, "verdict": "keep"}):
        with pytest.raises(BadReply, match="turns go with the verdict revise"):
            parse_reply(json.dumps(wrong), Verdict)
