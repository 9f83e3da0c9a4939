"""What becomes of a file when its verdicts are applied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medsegr.qa.checks import check_file
from medsegr.qa.reader import read_qa
from medsegr.qa.review.applying import Applied, Dispute, apply_file
from medsegr.qa.review.entries import ReviewError, TurnText, Verdict
from medsegr.qa.review.log import log_path_of
from medsegr.qa.review.queue import ReviewQueue
from medsegr.qa.schema import Conversation

ACCEPT, EDIT, REJECT = Verdict
SPLEEN = TurnText("Outline the spleen, please.", "The <p>spleen</p> [SEG] lies on the patient's left.")
AORTA = TurnText("Show the aorta now.", "The <p>aorta</p> [SEG] lies before the spine.")


def read(path: Path) -> dict[str, Conversation]:
    return {c.id: c for c in read_qa(path)}


def test_two_reviewers_both_needed(queue: ReviewQueue) -> None:
    queue.record("liver", "Bob", ACCEPT, note="fine")
    queue.record("liver", "Ada", ACCEPT, note="clear")
    for who in ("Ada", "Bob"):
        queue.record("spleen", who, EDIT, [SPLEEN])
        queue.record("hippocampus", who, REJECT)
    queue.record("aorta", "Ada", ACCEPT)
    out = queue.root / "out" / "reviewed.jsonl"
    assert apply_file(queue, out) == Applied(1, 1, 1, waiting=1, outdated=0, disputes=())
    found = read(out)
    assert {id_: c.review.status for id_, c in found.items()} == {
        "liver": "accepted",
        "spleen": "edited",
        "aorta": "auto",
        "hippocampus": "rejected",
    }
    assert (found["liver"].review.reviewer, found["liver"].review.note) == (
        "Ada, Bob",
        "Ada: clear; Bob: fine",
    )
    assert (found["spleen"].turns[0].question, found["spleen"].turns[0].targets) == (
        SPLEEN.question,
        queue.conversations["spleen"].turns[0].targets,
    )
    assert read(queue.file) == queue.conversations  # the file under review is left alone
    assert log_path_of(out).read_bytes() == queue.log.path.read_bytes()


def test_disagreement_stays_auto_and_is_listed(queue: ReviewQueue) -> None:
    queue.record("liver", "Ada", ACCEPT)
    queue.record("liver", "Bob", REJECT)
    queue.record("spleen", "Ada", ACCEPT)
    queue.record("spleen", "Bob", EDIT, [SPLEEN])
    queue.record("aorta", "Ada", EDIT, [AORTA])
    queue.record("aorta", "Bob", EDIT, [TurnText("Show me the aorta.", AORTA.answer)])
    result = apply_file(queue, queue.root / "out.jsonl")
    assert result.disputes == (
        Dispute("liver", "Ada accept, Bob reject"),
        Dispute("spleen", "Ada accept, Bob edit"),
        Dispute("aorta", "Ada edit, Bob edit, with different texts"),
    )
    assert (result.accepted, result.edited, result.rejected, result.waiting) == (0, 0, 0, 1)
    found = read(queue.root / "out.jsonl")
    assert {c.review.status for c in found.values()} == {"auto"}
    assert [c.turns for c in found.values()] == [c.turns for c in queue.conversations.values()]


def test_a_reviewer_who_gives_way_settles_it(queue: ReviewQueue) -> None:
    queue.record("spleen", "Ada", EDIT, [SPLEEN])
    queue.record("spleen", "Bob", ACCEPT)
    queue.record("spleen", "Bob", EDIT, [SPLEEN])
    assert apply_file(queue, queue.root / "out.jsonl").edited == 1


def test_one_reviewer_is_enough_where_that_is_asked_for(queue: ReviewQueue) -> None:
    queue.record("liver", "Ada", ACCEPT)
    result = apply_file(queue, queue.root / "out.jsonl", reviewers=1)
    assert (result.accepted, result.waiting) == (1, 3)
    assert apply_file(queue, queue.root / "out.jsonl", reviewers=2).accepted == 0


def test_applying_again_to_the_result_changes_nothing(queue: ReviewQueue) -> None:
    for who in ("Ada", "Bob"):
        queue.record("spleen", who, EDIT, [SPLEEN])
    once, twice = queue.root / "once.jsonl", queue.root / "twice.jsonl"
    apply_file(queue, once)
    again = ReviewQueue(once)
    assert again.next_unreviewed("Ada", "liver") == "aorta"
    assert apply_file(again, twice).edited == 1
    assert once.read_bytes() == twice.read_bytes()
    assert check_file(twice) == []


def test_an_edit_that_no_longer_passes_the_checks_is_listed(queue: ReviewQueue) -> None:
    for who in ("Ada", "Bob"):
        queue.record("spleen", who, EDIT, [SPLEEN])
    text = queue.log.path.read_text().replace(SPLEEN.question.join('""'), '"Outline it."')
    queue.log.path.write_text(
        text.replace('<p>spleen</p> [SEG] lies on the patient\'s left."}], "note', 'spleen."}], "note')
    )
    result = apply_file(ReviewQueue(queue.file), queue.root / "out.jsonl")
    assert result.edited == 0
    assert [d.why for d in result.disputes] == [
        "the edit does not pass the checks: turn 1: the answer has 0 [SEG] for 1 targets"
    ]
    assert read(queue.root / "out.jsonl")["spleen"].review.status == "auto"


def test_verdicts_about_another_text_are_left_out_and_counted(queue: ReviewQueue) -> None:
    for who in ("Ada", "Bob"):
        queue.record("spleen", who, ACCEPT)
    queue.file.write_text(queue.file.read_text().replace("Outline the spleen.", "Where is the spleen?"))
    result = apply_file(ReviewQueue(queue.file), queue.root / "out.jsonl")
    assert (result.accepted, result.outdated, result.waiting) == (0, 2, 4)


def test_reviews_are_never_overwritten(queue: ReviewQueue) -> None:
    queue.record("liver", "Ada", ACCEPT)
    with pytest.raises(ReviewError, match="is the file under review"):
        apply_file(queue, queue.file)
    out = queue.root / "out.jsonl"
    apply_file(queue, out)
    ReviewQueue(out).record("liver", "Cid", REJECT)
    before = out.read_bytes(), log_path_of(out).read_bytes()
    with pytest.raises(ReviewError, match="has reviews that qa.jsonl.reviews.jsonl lacks"):
        apply_file(queue, out)
    assert (out.read_bytes(), log_path_of(out).read_bytes()) == before
    assert json.loads(before[1].splitlines()[1])["reviewer"] == "Cid"
