"""Who sees what, what is left, and which verdicts are taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medsegr.qa.checks import check_file
from medsegr.qa.reader import read_qa, write_qa
from medsegr.qa.review.entries import ReviewError, TurnText, Verdict, texts_of
from medsegr.qa.review.queue import Progress, ReviewQueue

ACCEPT, EDIT, REJECT = Verdict
NEW = TurnText("Outline the spleen, please.", "The <p>spleen</p> [SEG] lies on the patient's left.")


def test_the_file_of_these_tests_is_sound(qa_file: Path) -> None:
    assert check_file(qa_file) == []


def test_next_unreviewed_goes_round_the_end(queue: ReviewQueue) -> None:
    assert queue.next_unreviewed("Ada") == "liver"
    assert queue.next_unreviewed("Ada", "spleen") == "aorta"
    queue.record("liver", "Ada", ACCEPT)
    queue.record("aorta", "Ada", REJECT)
    assert queue.next_unreviewed("Ada", "spleen") == "hippocampus"
    assert queue.next_unreviewed("Ada", "hippocampus") == "spleen"
    assert queue.next_unreviewed("Bob") == "liver"
    for id_ in ("spleen", "hippocampus"):
        queue.record(id_, "Ada", ACCEPT)
    assert queue.next_unreviewed("Ada") is None
    assert queue.progress() == {"Ada": Progress(4, 3, 0, 1)} and queue.progress()["Ada"].done == 4


def test_others_are_seen_only_after_ones_own_verdict(queue: ReviewQueue) -> None:
    queue.record("spleen", "Ada", EDIT, [NEW], note=" better ")
    assert queue.item("spleen", "Bob").others == ()
    first = queue.record("spleen", "Bob", ACCEPT)
    assert first.blind
    item = queue.item("spleen", "Bob")
    assert (item.position, item.previous, item.next) == (2, "liver", "aorta")
    assert [(e.reviewer, e.verdict, e.after, e.note) for e in item.others] == [
        ("Ada", EDIT, (NEW,), "better")
    ]
    second = queue.record("spleen", "Bob", EDIT, [NEW])
    assert not second.blind
    assert queue.item("spleen", "Bob").own == second
    assert queue.item("spleen", "Ada").others == (second,)
    assert len(queue.log.entries()) == 3  # the log keeps the verdict that was changed


def test_a_slip_may_be_corrected_blind_while_nobody_else_has_judged(queue: ReviewQueue) -> None:
    queue.record("liver", "Ada", REJECT)
    assert queue.record("liver", "Ada", ACCEPT).blind
    assert queue.progress()["Ada"] == Progress(4, 1, 0, 0)


def test_the_log_keeps_before_and_after(queue: ReviewQueue) -> None:
    entry = queue.record("spleen", "Ada", EDIT, [replace(NEW, question=f" {NEW.question} ")])
    assert entry.before == (TurnText("Outline the spleen.", NEW.answer),)
    assert entry.after == (NEW,)
    assert len(entry.time) == 20 and entry.time.endswith("Z")
    assert ReviewQueue(queue.file).log.entries() == [entry]


@pytest.mark.parametrize(
    ("id_", "turns", "reason"),
    [
        (
            "spleen",
            [TurnText("Outline the spleen.", "The spleen lies on the left.")],
            "turn 1: the answer has 0 \\[SEG\\]",
        ),
        ("spleen", [replace(NEW, answer="The <p>liver</p> [SEG].")], "the answer marks \\['liver'\\]"),
        (
            "liver",
            [TurnText("Where is the liver?", "The <p>liver</p> [SEG].")] * 2,
            "gives 'liver' away .* \\(and [0-9] more\\)",
        ),
        ("liver", [NEW], "The edit has 1 turns; the conversation has 2."),
        ("spleen", [TurnText(" ", NEW.answer)], "turn 1 without a question"),
        ("spleen", [TurnText(NEW.question, "")], "turn 1 without"),
        ("spleen", [TurnText("Outline the spleen.", NEW.answer)], "changes nothing"),
    ],
)
def test_a_bad_edit_is_refused_and_nothing_is_written(
    queue: ReviewQueue, id_: str, turns: list[TurnText], reason: str
) -> None:
    with pytest.raises(ReviewError, match=reason) as caught:
        queue.record(id_, "Ada", EDIT, turns)
    assert str(caught.value).endswith(".")
    assert not queue.log.path.exists()


def test_turns_go_with_edits_only(queue: ReviewQueue) -> None:
    for verdict, turns in ((EDIT, None), (ACCEPT, [NEW]), (REJECT, [NEW])):
        with pytest.raises(ReviewError, match="expected turns with an edit"):
            queue.record("spleen", "Ada", verdict, turns)
    with pytest.raises(KeyError):
        queue.record("elsewhere", "Ada", ACCEPT)
    assert queue.log.entries() == []


def test_a_changed_text_needs_a_new_verdict_but_an_applied_edit_does_not(queue: ReviewQueue) -> None:
    queue.record("spleen", "Ada", EDIT, [NEW])
    queue.record("aorta", "Ada", ACCEPT)
    conversations = {c.id: c for c in read_qa(queue.file)}
    for id_, text in (("spleen", NEW), ("aorta", TurnText("Show it.", "The <p>aorta</p> [SEG]."))):
        turn = replace(conversations[id_].turns[0], question=text.question, answer=text.answer)
        conversations[id_] = replace(conversations[id_], turns=(turn,))
    write_qa(queue.file, conversations.values())
    changed = ReviewQueue(queue.file)
    assert changed.item("spleen", "Ada").own is not None
    assert changed.item("aorta", "Ada").own is None
    assert texts_of(changed.conversations["spleen"]) == (NEW,)


def test_names_are_known_by_their_first_spelling(queue: ReviewQueue) -> None:
    queue.record("liver", "Ada", ACCEPT)
    assert queue.known_as(" ada") == "Ada" and queue.known_as("Bob") == "Bob"
    assert queue.reviewers() == ("Ada",)
