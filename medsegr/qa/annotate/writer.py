"""Writes the conversations of one case: describe, ask, converse, review. What fails a check is returned with its reason.

Every case has three conversations (attribute, location, dialogue); each ends up either kept or rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from medsegr.errors import MedSegRError
from medsegr.qa.annotate import prompts
from medsegr.qa.annotate.backend import Backend, EmptyReply, RequestRefused
from medsegr.qa.annotate.cases import Case, Draw, name_contradicts_mask, read_case
from medsegr.qa.annotate.replies import (
    BadReply,
    Descriptions,
    Dialogue,
    Exchange,
    Reply,
    Verdict,
    parse_reply,
)
from medsegr.qa.annotate.wording import Wording, follow_up_problems
from medsegr.qa.facts import Concept, KnowledgeBase
from medsegr.qa.schema import Conversation, Turn

PARTS = ("attribute", "location", "dialogue")
TRIES = 2  # a reply that cannot be used is asked for once more, with the reason
_KINDS = {"observe": "implicit", "reason": "implicit", "segment": "explicit", "follow_up": "explicit"}

R = TypeVar("R", bound=Reply)


@dataclass(frozen=True)
class Rejected:
    """A conversation that was not kept: its id, the step that failed, and why."""

    id: str
    step: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of one draw. `refused`: the backend would not take a request."""

    index: int
    conversations: tuple[Conversation, ...]
    rejected: tuple[Rejected, ...]
    refused: bool = False


@dataclass(frozen=True)
class _Asked(Generic[R]):
    """The last reply to a prompt (None if it was no JSON) and its problems (empty if it can be used)."""

    reply: R | None
    problems: list[str]


@dataclass
class _Work:
    """One case on its way."""

    case: Case
    concept: Concept
    conversations: list[Conversation] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    refused: bool = False

    def reject(self, part: str, step: str, problems: Sequence[str]) -> None:
        reason = "; ".join(dict.fromkeys(problems))
        self.rejected.append(Rejected(f"{self.case.draw.id}_{part}", step, reason))


@dataclass(frozen=True)
class Writer:
    """Annotates draws with a backend; holds no state, so that threads may share it."""

    backend: Backend
    knowledge: KnowledgeBase
    wording: Wording

    def annotate(self, draw: Draw) -> Outcome:
        """The conversations of a draw that pass every check, and the reasons against the others. Raises `Unavailable` if the
        backend does not answer, and `MedSegRError` if it never will."""
        work = _Work(read_case(draw, self.knowledge), self.knowledge[draw.name])
        if contradiction := name_contradicts_mask(work.case):
            for part in PARTS:
                work.reject(part, "facts", [contradiction])
        else:
            self._write(work)
        return Outcome(draw.index, tuple(work.conversations), tuple(work.rejected), work.refused)

    def _write(self, work: _Work) -> None:
        case, concept = work.case, work.concept

        def problems(reply: Descriptions) -> list[str]:
            return [
                f"{part}: {problem}"
                for part, text in _described(reply).items()
                for problem in self.wording.description_problems(text, case)
            ]

        asked = self._ask(work, prompts.describe(case, concept), Descriptions, problems)
        if asked.reply is None:
            for part in PARTS:
                work.reject(part, "describe", asked.problems)
            return
        sound = {}
        for part, text in _described(asked.reply).items():
            if found := self.wording.description_problems(text, case):
                work.reject(part, "describe", found)
            else:
                sound[part] = text
        for part, text in sound.items():
            self._single(work, part, text)
        if sound:
            self._dialogue(work, list(sound.values()))
        else:
            work.reject("dialogue", "describe", ["neither description can be used"])

    def _single(self, work: _Work, part: str, description: str) -> None:
        def problems(reply: Exchange) -> list[str]:
            return self.wording.candidate_problems(
                _conversation(work, part, [reply], ["implicit"]), work.case
            )

        asked = self._ask(work, prompts.ask(work.case, work.concept, description), Exchange, problems)
        if asked.reply is None or asked.problems:
            work.reject(part, "ask", asked.problems)
        else:
            self._review(work, part, [asked.reply], ["implicit"])

    def _dialogue(self, work: _Work, descriptions: Sequence[str]) -> None:
        def problems(reply: Dialogue) -> list[str]:
            kinds = [_KINDS[turn.step] for turn in reply.turns]
            return self._dialogue_problems(work, reply.turns, kinds)

        asked = self._ask(work, prompts.converse(work.case, work.concept, descriptions), Dialogue, problems)
        if asked.reply is None or asked.problems:
            work.reject("dialogue", "converse", asked.problems)
        else:
            self._review(
                work, "dialogue", asked.reply.turns, [_KINDS[turn.step] for turn in asked.reply.turns]
            )

    def _dialogue_problems(self, work: _Work, turns: Sequence[Exchange], kinds: Sequence[str]) -> list[str]:
        candidate = _conversation(work, "dialogue", turns, kinds)
        return [
            *self.wording.candidate_problems(candidate, work.case),
            *follow_up_problems(turns[-1].question),
        ]

    def _review(self, work: _Work, part: str, turns: Sequence[Exchange], kinds: Sequence[str]) -> None:
        """The second pass; what it rewrites must pass the same checks."""

        def problems(reply: Verdict) -> list[str]:
            if reply.verdict != "revise":
                return []
            if len(reply.turns) != len(turns):
                return [f"the revision has {len(reply.turns)} turns; expected {len(turns)}"]
            if part == "dialogue":
                return self._dialogue_problems(work, reply.turns, kinds)
            return self.wording.candidate_problems(_conversation(work, part, reply.turns, kinds), work.case)

        text = prompts.review(work.case, work.concept, [(t.question, t.answer) for t in turns])
        asked = self._ask(work, text, Verdict, problems)
        if asked.reply is None or asked.problems:
            work.reject(part, "review", asked.problems)
        elif asked.reply.verdict == "drop":
            work.reject(part, "review", [f"dropped by the second pass: {asked.reply.reason}"])
        else:
            kept = asked.reply.turns if asked.reply.verdict == "revise" else turns
            work.conversations.append(_conversation(work, part, kept, kinds))

    def _ask(self, work: _Work, prompt: str, shape: type[R], problems: Callable[[R], list[str]]) -> _Asked[R]:
        """Ask, and ask once more with the reason if the reply cannot be used."""
        messages = [{"role": "user", "content": prompt}]
        last: _Asked[R] = _Asked(None, [])
        for _ in range(TRIES):
            text = ""
            try:
                text = self.backend.complete(messages)
                reply = parse_reply(text, shape)
                last = _Asked(reply, problems(reply))
            except RequestRefused as error:
                work.refused = True
                return _Asked(None, [str(error)])
            except (BadReply, EmptyReply) as error:
                last = _Asked(None, [str(error)])
            if last.reply is not None and not last.problems:
                return last
            messages = [
                messages[0],
                {"role": "assistant", "content": text or "{}"},
                {"role": "user", "content": prompts.again(last.problems)},
            ]
        return last


def require_regions(draws: Sequence[Draw], regions: Sequence[str]) -> None:
    """Raise `MedSegRError` for a set whose region is no known one: it would be sent as it stands."""
    for draw in draws:
        source = draw.scene.source
        if source.region not in regions:
            raise MedSegRError(
                f"The set {source.name} has the region '{source.region}'; expected one of {', '.join(regions)}."
            )


def _described(reply: Descriptions) -> dict[str, str]:
    return {"attribute": reply.attribute, "location": reply.location}


def _conversation(work: _Work, part: str, turns: Sequence[Exchange], kinds: Sequence[str]) -> Conversation:
    target = work.case.scene.target(work.case.facts.name)
    return work.case.scene.conversation(
        f"{work.case.draw.id}_{part}",
        [Turn(t.question, t.answer, (target,), kind) for t, kind in zip(turns, kinds, strict=True)],
    )
