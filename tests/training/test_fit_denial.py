"""The rule for denials: which questions it is fitted on, and what it does to what is there and what is absent."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medsegr.denial import least_no, said_logit
from medsegr.qa.schema import Target, Turn
from medsegr.training.fit_denial import PER_CASE, Named, ask_by_name, fit_rule
from medsegr.untrained import AskedNames
from tests.training.test_calibrate import _asking

OVERVIEW = -3.0


def _drawn(rng: np.random.Generator, absent: bool, dataset: str) -> Named:
    """The word tells little, the overview much."""
    way = 1.0 if absent else -1.0
    return Named((rng.normal(0.3 * way, 1), rng.normal(-1.5 * way, 1)), absent, dataset)


def _denies(rule: tuple[float, ...], named: Named) -> bool:
    return float(np.dot(rule[:-1], named.features)) + rule[-1] >= 0


def test_the_rule_keeps_to_the_share_that_may_be_denied_and_finds_what_tells() -> None:
    rng = np.random.default_rng(0)
    asked = [_drawn(rng, bool(n % 2), "a") for n in range(2000)]
    found = fit_rule(asked, 0.05)
    assert (found.present, found.absent) == (1000, 1000)
    denied = [
        float(np.mean([_denies(found.rule, a) for a in asked if a.absent == kind])) for kind in (False, True)
    ]
    assert denied == pytest.approx([found.present_denied, found.absent_denied])
    assert denied[0] <= 0.05 and denied[0] == pytest.approx(0.05, abs=0.002)
    assert denied[1] > 0.85, "two normal distributions three apart: 0.91 beyond the 95th percentile"
    word, overview, _ = found.rule
    assert overview / word == pytest.approx(-5, abs=1.5), "as far apart as the means"


def test_sets_count_the_same_whatever_their_size() -> None:
    """Half of what a small set shows looks absent; as one of two sets it weighs as much as the large one."""
    rng = np.random.default_rng(1)
    asked = [_drawn(rng, bool(n % 2), "large") for n in range(2000)]
    asked += [Named((0.0, -2.0 if n % 2 else 2.0), False, "small") for n in range(20)]
    found = fit_rule(asked, 0.05)
    small = np.mean([_denies(found.rule, a) for a in asked if a.dataset == "small"])
    large = np.mean([_denies(found.rule, a) for a in asked if a.dataset == "large" and not a.absent])
    assert (small + large) / 2 == pytest.approx(found.present_denied) and found.present_denied <= 0.05


def test_too_few_questions_give_no_rule() -> None:
    rng = np.random.default_rng(2)
    asked = [_drawn(rng, n < 19, "a") for n in range(100)]
    found = fit_rule(asked)
    assert found.rule == () and (found.present, found.absent) == (81, 19)


def test_a_fitted_rule_is_what_the_answerer_applies() -> None:
    """Denied by the sum of logits is denied by the probability of the word."""
    rng = np.random.default_rng(3)
    rule = fit_rule([_drawn(rng, bool(n % 2), "a") for n in range(400)]).rule
    for chance in (0.001, 0.1, 0.5, 0.9, 0.999):
        for overview in (-3.0, 0.0, 3.0):
            named = Named((said_logit(chance), overview), True, "a")
            assert (chance >= least_no(rule, overview)) == _denies(rule, named)


# --- what is asked -----------------------------------------------------------------------------------------------------


class Answerer:
    """Knows what a question asks for by its last word; hears what it is asked."""

    scales = (1.0,)

    def __init__(self) -> None:
        self.prepared = 0
        self.heard: list[tuple[str, str]] = []

    def asked(self, question: str) -> AskedNames:
        words = question.split()
        return AskedNames(
            tuple(w for w in ("liver", "spleen") if w in words), ("heart",) if "heart" in words else ()
        )

    def prepare(self, rgb: np.ndarray, scales: Any) -> Any:
        self.prepared += 1
        return SimpleNamespace(rgb=rgb)

    def chance_of_denial(self, prepared: Any, question: str) -> float:
        self.heard.append(("word", question))
        return 0.5

    def overview(self, prepared: Any, name: str) -> float:
        self.heard.append(("look", name))
        return OVERVIEW


def _turn(question: str, kind: str, name: str) -> Turn:
    absent = kind.startswith("absent")
    targets = () if absent else (Target(name, name, "m.png", (1,)),)
    return Turn(question, "\N{HORIZONTAL ELLIPSIS}", targets, kind, None, (name,) if absent else ())


def test_one_structure_by_name_is_asked_for_as_often_as_is_allowed() -> None:
    answerer: Any = Answerer()
    case = _asking(
        *([_turn(f"Show {n} liver", "explicit", "liver")] for n in range(PER_CASE + 4)),
        *(
            [_turn(f"Show {n} spleen", kind, "spleen")]
            for n, kind in enumerate(("absent_same_set", "absent_elsewhere"))
        ),
        [_turn("Show liver spleen", "explicit", "liver")],
        [_turn("What makes bile", "implicit", "liver")],
        [_turn("Show liver heart", "explicit", "liver")],
        [_turn("Show spleen", "explicit", "liver")],
    )
    found = ask_by_name(answerer, [case])
    assert Counter(named.absent for named in found) == {False: PER_CASE, True: 2}
    assert answerer.prepared == 1, "an image is encoded once"
    assert {named.features for named in found} == {(0.0, OVERVIEW)}
    assert {named.dataset for named in found} == {case.dataset}
    asked = [text for what, text in answerer.heard if what == "word"]
    assert all(len(question.split()) == 3 and question.split()[1].isdigit() for question in asked)


def test_a_case_without_such_questions_is_not_looked_at() -> None:
    answerer: Any = Answerer()
    assert ask_by_name(answerer, [_asking([_turn("What makes bile", "implicit", "liver")])]) == []
    assert answerer.prepared == 0
