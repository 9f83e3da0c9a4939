"""From verdicts to a new MedSeg-QA file: what all reviewers agree on is applied, the rest stays `auto` and is listed.

The log goes along as the new file's log, so that who, when, before and after are never lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medsegr.files import write_whole
from medsegr.qa.reader import write_qa
from medsegr.qa.review.entries import Entry, ReviewError, Verdict, texts_of, with_texts
from medsegr.qa.review.log import log_path_of
from medsegr.qa.review.queue import ReviewQueue
from medsegr.qa.schema import Conversation, Review

STATUS = {Verdict.ACCEPT: "accepted", Verdict.EDIT: "edited", Verdict.REJECT: "rejected"}


@dataclass(frozen=True)
class Dispute:
    """A conversation that stays `auto`, with the sentence that says why."""

    id: str
    why: str


@dataclass(frozen=True)
class Applied:
    """What became of a file's conversations. `waiting`: too few verdicts yet; `outdated`: verdicts about a text that
    the file no longer has, which were left out."""

    accepted: int
    edited: int
    rejected: int
    waiting: int
    outdated: int
    disputes: tuple[Dispute, ...]


def apply_file(queue: ReviewQueue, out: Path, reviewers: int = 2) -> Applied:
    """Write the file's conversations with their review status to `out`, and the log beside it.

    A conversation is accepted, edited or rejected when at least `reviewers` people said so and nobody said otherwise;
    an edit needs the same new text from all of them, and must still pass the checks. Raises `ReviewError` where `out`
    is the reviewed file or has reviews of its own.
    """
    if out.resolve() == queue.file.resolve():
        raise ReviewError(f"{out.name} is the file under review; expected another file to write to.")
    raw = queue.log.path.read_bytes() if queue.log.path.exists() else b""
    audit = log_path_of(out)
    separate = audit.resolve() != queue.log.path.resolve()
    if separate and audit.exists() and not raw.startswith(audit.read_bytes()):
        raise ReviewError(
            f"{audit.name} has reviews that {queue.log.path.name} lacks; expected a new file to write to."
        )
    by_id: dict[str, list[Entry]] = defaultdict(list)
    for (id_, _), entry in queue.latest().items():
        by_id[id_].append(entry)
    written, disputes, waiting = [], [], 0
    for conversation in queue.conversations.values():
        entries = sorted(by_id[conversation.id], key=lambda entry: entry.reviewer)
        result, why = decide(conversation, entries, reviewers)
        if result.review.status == "edited" and why is None and (found := queue.problems(result)):
            result, why = _undecided(conversation), f"the edit does not pass the checks: {found[0]}"
        if why is not None:
            disputes.append(Dispute(conversation.id, why))
        waiting += why is None and len(entries) < reviewers
        written.append(result)
    if separate:
        write_whole(audit, raw)
    write_qa(out, written)
    decided = [c.review.status for c in written if len(by_id[c.id]) >= reviewers]
    return Applied(
        accepted=decided.count("accepted"),
        edited=decided.count("edited"),
        rejected=decided.count("rejected"),
        waiting=waiting,
        outdated=len({(e.id, e.reviewer) for e in queue.log.entries()} - queue.latest().keys()),
        disputes=tuple(disputes),
    )


def decide(
    conversation: Conversation, entries: Sequence[Entry], reviewers: int
) -> tuple[Conversation, str | None]:
    """The conversation as the verdicts leave it, and why they do not settle it (None if they do or are too few).

    `entries`: the verdict that counts of each reviewer, in the order in which they are to be named.
    """
    said = ", ".join(f"{entry.reviewer} {entry.verdict}" for entry in entries)
    if len({entry.verdict for entry in entries}) > 1:
        return _undecided(conversation), said
    if len({entry.after for entry in entries}) > 1:
        return _undecided(conversation), f"{said}, with different texts"
    if len(entries) < reviewers:
        return conversation, None
    first = entries[0]
    notes = "; ".join(f"{entry.reviewer}: {entry.note}" for entry in entries if entry.note)
    review = Review(STATUS[first.verdict], ", ".join(entry.reviewer for entry in entries), notes or None)
    settled = with_texts(conversation, first.after or texts_of(conversation))
    return replace(settled, review=review), None


def _undecided(conversation: Conversation) -> Conversation:
    return replace(conversation, review=Review())
