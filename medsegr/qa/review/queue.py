"""The conversations of a MedSeg-QA file and who has said what about them; takes new verdicts.

A reviewer sees nobody else's verdict about a conversation before giving one. A later verdict of the same reviewer
replaces the earlier one. A verdict counts only while the file still says what the reviewer saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medsegr.qa.checks import check_conversation
from medsegr.qa.facts import KnowledgeBase, load_knowledge
from medsegr.qa.reader import read_qa
from medsegr.qa.review.entries import (
    Entry,
    ReviewError,
    TurnText,
    Verdict,
    clean_name,
    texts_of,
    utc_now,
    with_texts,
)
from medsegr.qa.review.log import ReviewLog, log_path_of
from medsegr.qa.schema import Conversation


@dataclass(frozen=True)
class Progress:
    """How far one reviewer is: conversations by verdict, of `total`."""

    total: int
    accepted: int
    edited: int
    rejected: int

    @property
    def done(self) -> int:
        """Conversations with a verdict."""
        return self.accepted + self.edited + self.rejected


@dataclass(frozen=True)
class Item:
    """One conversation as one reviewer may see it. `position` counts from 1; `others` is empty until the reviewer
    has given a verdict."""

    conversation: Conversation
    position: int
    previous: str | None
    next: str | None
    own: Entry | None
    others: tuple[Entry, ...]


class ReviewQueue:
    """Review of one file; safe to share between threads. Raises `QAFileError` where file or log cannot be read."""

    def __init__(self, file: Path, log: Path | None = None, knowledge: KnowledgeBase | None = None) -> None:
        self.file = file
        self.conversations = {conversation.id: conversation for conversation in read_qa(file)}
        self.log = ReviewLog(log or log_path_of(file))
        self._ids = list(self.conversations)
        self._position = {id_: n for n, id_ in enumerate(self._ids)}
        self._knowledge = knowledge or load_knowledge()
        self.log.entries()  # a broken log is told now, not to the first reviewer

    @property
    def root(self) -> Path:
        """The folder that image paths are relative to."""
        return self.file.parent

    def __contains__(self, id_: object) -> bool:
        return id_ in self.conversations

    def reviewers(self) -> tuple[str, ...]:
        """Everybody who has given a verdict, in alphabetical order."""
        return tuple(sorted({entry.reviewer for entry in self.log.entries()}))

    def known_as(self, name: str) -> str:
        """The spelling under which a reviewer has written before ("anna" is "Anna"), else the cleaned name."""
        cleaned = clean_name(name)
        return next((known for known in self.reviewers() if known.casefold() == cleaned.casefold()), cleaned)

    def progress(self) -> dict[str, Progress]:
        """Per reviewer, how far they are."""
        latest = self.latest()
        found = {}
        for reviewer in self.reviewers():
            count = Counter(e.verdict for (_, who), e in latest.items() if who == reviewer)
            found[reviewer] = Progress(
                len(self._ids), count[Verdict.ACCEPT], count[Verdict.EDIT], count[Verdict.REJECT]
            )
        return found

    def latest(self) -> dict[tuple[str, str], Entry]:
        """(conversation id, reviewer) -> the verdict that counts."""
        return {(entry.id, entry.reviewer): entry for entry in self.log.entries() if self._counts(entry)}

    def next_unreviewed(self, reviewer: str, after: str | None = None) -> str | None:
        """The first conversation behind `after` (round the end, from the start if None) without this reviewer's verdict."""
        done = {id_ for id_, who in self.latest() if who == reviewer}
        start = self._position[after] + 1 if after is not None else 0
        return next((id_ for id_ in [*self._ids[start:], *self._ids[:start]] if id_ not in done), None)

    def item(self, id_: str, reviewer: str) -> Item:
        """Conversation `id_` for `reviewer`; raises `KeyError` if there is none."""
        n = self._position[id_]
        about = {who: entry for (about, who), entry in self.latest().items() if about == id_}
        own = about.pop(reviewer, None)
        return Item(
            conversation=self.conversations[id_],
            position=n + 1,
            previous=self._ids[n - 1] if n else None,
            next=self._ids[n + 1] if n + 1 < len(self._ids) else None,
            own=own,
            others=tuple(about.values()) if own else (),
        )

    def record(
        self,
        id_: str,
        reviewer: str,
        verdict: Verdict,
        turns: Sequence[TurnText] | None = None,
        note: str | None = None,
    ) -> Entry:
        """Check a verdict and write it to the log; nothing is written where `ReviewError` is raised.

        `turns` goes with an edit and only with it: all turns of the conversation, changed or not. An edited
        conversation must pass the same checks as a built one.
        """
        item = self.item(id_, reviewer)
        if (turns is None) == (verdict is Verdict.EDIT):
            raise ReviewError(
                f"The verdict is {verdict}; expected turns with an edit, and with nothing else."
            )
        after = None if turns is None else self._checked(item.conversation, tuple(turns))
        entry = Entry(
            time=utc_now(),
            reviewer=clean_name(reviewer),
            id=id_,
            verdict=verdict,
            before=texts_of(item.conversation),
            after=after,
            note=(note or "").strip() or None,
            blind=not item.others,
        )
        self.log.append(entry)
        return entry

    def problems(self, conversation: Conversation) -> list[str]:
        """What `medsegr qa check` would say about this conversation by itself."""
        return list(check_conversation(conversation, self.root, self._knowledge))

    def _checked(self, conversation: Conversation, turns: tuple[TurnText, ...]) -> tuple[TurnText, ...]:
        after = tuple(TurnText(turn.question.strip(), turn.answer.strip()) for turn in turns)
        before = texts_of(conversation)
        if after == before:
            raise ReviewError(
                "The edit changes nothing; change a question or an answer, or accept the conversation."
            )
        edited = with_texts(conversation, after)
        for n, (old, new) in enumerate(zip(before, after, strict=True), start=1):
            if not new.answer or (old.question and not new.question):  # an empty question asks for everything
                raise ReviewError(f"The edit leaves turn {n} without a question or an answer; expected both.")
        problems = self.problems(edited)
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise ReviewError(f"The edit cannot be kept: {problems[0]}{more}.")
        return after

    def _counts(self, entry: Entry) -> bool:
        conversation = self.conversations.get(entry.id)
        return conversation is not None and entry.fits(texts_of(conversation))
