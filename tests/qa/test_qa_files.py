"""MedSeg-QA files: what is written is read back, and every broken line is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medsegr.errors import QAFileError
from medsegr.qa.reader import read_qa, write_qa
from medsegr.qa.schema import Conversation, Review, Slice, Target, Turn

TURN = Turn(
    "Which organ here stores bile?",
    "The <p>gallbladder</p> [SEG] stores bile.",
    (Target("gallbladder", "gallbladder", "masks/a.png", (4,)),),
    "implicit",
    "gallbladder.function",
)
KIDNEYS = Turn("Show the kidneys.", "x", (Target("kidneys", "kidneys", "masks/a.png", (2, 3)),))
SAMPLE = Conversation("c1", "images/a.png", "CT", "btcv", "A1", "train", (TURN, KIDNEYS), "CC0", "permissive")


def minimal() -> dict[str, Any]:
    """The record of the design, without any key of ours."""
    target = {"label": "gallbladder", "phrase": "gallbladder", "mask": "masks/a.png", "value": 4}
    return {
        "id": "q", "image": "images/a.png", "modality": "CT", "dataset": "btcv", "patient_id": "A", "split": "train",
        "turns": [{"question": "Bile?", "answer": "The <p>gallbladder</p> [SEG].", "targets": [target]}],
    }  # fmt: skip


def test_conversations_survive_the_round_trip(tmp_path: Path) -> None:
    full = replace(
        SAMPLE, id="c2", spacing_mm=(0.8, 0.7), review=Review("edited", "dr", "ok"), slice=Slice(2, 40)
    )
    absent = replace(
        SAMPLE, id="c3", turns=(Turn("Spleen?", "No.", (), "absent_same_set", None, ("spleen",)),)
    )
    path = tmp_path / "sub" / "qa.jsonl"
    assert write_qa(path, [SAMPLE, full, absent]) == 3
    assert list(read_qa(path)) == [SAMPLE, full, absent]
    assert [p.name for p in path.parent.iterdir()] == ["qa.jsonl"]


def test_one_value_is_an_integer_and_several_are_a_list() -> None:
    turns = SAMPLE.to_json()["turns"]
    assert [t["targets"][0]["value"] for t in turns] == [4, [2, 3]]


def test_the_record_of_the_design_is_enough() -> None:
    conversation = Conversation.from_json(minimal())
    assert conversation.turns[0].kind == "explicit"
    assert conversation.review == Review()
    assert conversation.licence_class == "research"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    write_qa(path, [SAMPLE])

    def broken() -> Any:
        yield replace(SAMPLE, id="c9")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_qa(path, broken())
    assert [c.id for c in read_qa(path)] == ["c1"]
    assert list(tmp_path.iterdir()) == [path]


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        *parents, last = key.split(".")
        for parent in parents:
            row = row[int(parent)] if parent.isdigit() else row[parent]
        row[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("id", ""), "'id' is ''; expected text"),
        (_set("modality", "PET"), "'modality' is 'PET'; expected one of CT, MR"),
        (_set("split", None), "'split' is None; expected one of train, val, test"),
        (_set("turns", []), "'turns' is empty"),
        (_set("turns", {"question": 1}), "'turns' is .*expected a list"),
        (_set("turns.0.answer", 3), "'turns\\[0\\].answer' is 3; expected text"),
        (_set("turns.0.kind", "riddle"), "'turns\\[0\\].kind' is 'riddle'; expected one of explicit"),
        (_set("turns.0.targets.0.value", 0), "'turns\\[0\\].targets\\[0\\].value' is 0; expected a positive"),
        (_set("turns.0.targets.0.value", [1, True]), "expected a positive integer"),
        (_set("spacing_mm", [0.5]), "'spacing_mm' is \\[0.5\\]; expected two or three positive"),
        (_set("slice", {"axis": 3, "index": 0}), "'slice' is .*expected an axis of 0, 1 or 2"),
        (_set("review", {"status": "fine"}), "'review.status' is 'fine'"),
    ],
)
def test_a_broken_field_is_named_with_file_and_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    bad = minimal()
    change(bad)
    path = tmp_path / "qa.jsonl"
    path.write_text(json.dumps({**minimal(), "id": "good"}) + "\n\n" + json.dumps(bad) + "\n")
    with pytest.raises(QAFileError, match=message) as caught:
        list(read_qa(path))
    assert str(caught.value).startswith(f"{path}:3: ")


def test_broken_json_repeated_ids_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    path.write_text('{"id": \n')
    with pytest.raises(QAFileError, match="qa.jsonl:1: not valid JSON"):
        list(read_qa(path))
    path.write_text(2 * (json.dumps(minimal()) + "\n"))
    with pytest.raises(QAFileError, match=r"qa.jsonl:2: id 'q' was used in line 1"):
        list(read_qa(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QAFileError, match="expected JSON Lines in UTF-8"):
        list(read_qa(path))
    with pytest.raises(QAFileError, match="cannot be read"):
        list(read_qa(tmp_path / "none.jsonl"))
    path.write_text("[1]\n")
    with pytest.raises(QAFileError, match="a conversation is list; expected a JSON object"):
        list(read_qa(path))
