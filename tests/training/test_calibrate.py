"""The confidence curve, the patients and the facts it is fitted on, and the findings behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegr.model.checkpoint import load_checkpoint, read_meta, save_checkpoint
from medsegr.model.medsegr import MedSegR
from medsegr.predictor import Finding, Predictor, Reply
from medsegr.qa.schema import Target, Turn
from medsegr.training.calibrate import (
    FACTS_KEPT,
    calibrate,
    fact_kept,
    finding_scores,
    fit_curve,
    kept_for_calibration,
    recalibrate,
    without_kept_facts,
)
from medsegr.training.images import Case
from tests.training.test_batches import _case, _labels

KEPT = [f"liver-{n}" for n in range(2000) if fact_kept(f"liver-{n}")]
TAUGHT = [f"liver-{n}" for n in range(2000) if not fact_kept(f"liver-{n}")]


def _scores(rng: np.random.Generator, count: int = 20000) -> list[tuple[float, float]]:
    pairs = np.column_stack([rng.normal(0, 2, count), -rng.exponential(1, count)])
    return [(float(quality), float(words)) for quality, words in pairs]


def test_a_known_curve_is_found_again() -> None:
    rng = np.random.default_rng(0)
    scores = _scores(rng)
    logits = np.array([1.5 * quality + 0.8 * words - 0.5 for quality, words in scores])
    good = rng.random(len(scores)) < 1 / (1 + np.exp(-logits))
    slope, offset, words = fit_curve(scores, good.tolist())
    assert (slope, offset, words) == pytest.approx((1.5, -0.5, 0.8), abs=0.1)


def test_words_that_tell_nothing_have_no_weight() -> None:
    rng = np.random.default_rng(1)
    scores = _scores(rng)
    good = [rng.random() < 1 / (1 + math.exp(-quality)) for quality, _ in scores]
    assert fit_curve(scores, good)[2] == pytest.approx(0.0, abs=0.06)


def test_one_outcome_gives_the_identity() -> None:
    assert fit_curve([(0.1, -1.0), (0.2, -2.0)], [True, True]) == (1.0, 0.0, 0.0)
    assert fit_curve([], []) == (1.0, 0.0, 0.0)


def test_a_patient_is_kept_out_as_a_whole() -> None:
    case = _case("a", 1, _labels(1, slice(0, 20)))
    cases = [replace(case, patient_id=f"p{i}", image=f"{k}.png") for i in range(400) for k in range(2)]
    kept = {c.patient_id for c in cases if kept_for_calibration(c, 0.1)}
    trained = {c.patient_id for c in cases if not kept_for_calibration(c, 0.1)}
    assert not kept & trained
    assert math.isclose(len(kept) / 400, 0.1, abs_tol=0.05)


def test_a_share_of_the_facts_is_kept_whatever_the_patient() -> None:
    assert len(KEPT) / 2000 == pytest.approx(FACTS_KEPT, abs=0.02)
    assert not fact_kept(None)
    assert all(fact_kept(fact, 1.0) and not fact_kept(fact, 0.0) for fact in KEPT)


# --- what is asked -----------------------------------------------------------------------------------------------------


def _turn(question: str, kind: str, fact: str | None = None) -> Turn:
    absent = kind.startswith("absent")
    targets = () if absent else (Target("liver", "liver", "m.png", (1,)),)
    return Turn(question, "\N{HORIZONTAL ELLIPSIS}", targets, kind, fact, ("spleen",) if absent else ())


def _asking(*conversations: Sequence[Turn]) -> Case:
    """A case of a liver in rows 10 to 39 with these conversations."""
    case = _case("a", 1, _labels(1, slice(10, 40)))
    (one,) = case.conversations
    made = tuple(replace(one, id=f"c{n}", turns=tuple(turns)) for n, turns in enumerate(conversations))
    return replace(case, conversations=made)


def test_conversations_that_ask_by_a_kept_fact_are_not_trained_on() -> None:
    named = [_turn("Where is the liver?", "explicit")]
    taught = [_turn("What makes bile?", "implicit", TAUGHT[0])]
    first = [_turn("What stores sugar?", "implicit", KEPT[0])]
    later = [*named, _turn("And what stores sugar?", "implicit", KEPT[1])]
    lacking = [_turn("What filters blood?", "absent_same_set", KEPT[2])]
    case = _asking(named, taught, first, later, lacking)
    left = without_kept_facts(case)
    assert [c.turns for c in left.conversations] == [tuple(named), tuple(taught)]
    assert left.rgb is case.rgb and left.patient_id == case.patient_id
    only = _asking(first)
    assert without_kept_facts(only) is only, "an image is not thrown away"


class Asked:
    """Stands in for the predictor: outlines rows 10 to 39, or as many rows as the question says, "both" twice, "none" not."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []
        self.questions: list[str] = []

    def set_image(self, image: np.ndarray) -> None:
        self.images.append(image)

    def ask(self, question: str) -> Reply:
        self.questions.append(question)
        rows = int(question.split()[-1]) if question[-1].isdigit() else 30
        scores = (float(rows), -float(len(self.questions)))
        found = Finding("liver", "liver", _labels(1, slice(10, 10 + rows)) > 0, 0.5, scores)
        number = 0 if "none" in question else 2 if "both" in question else 1
        return Reply("\N{HORIZONTAL ELLIPSIS}", (found,) * number, {})


def _ask(case: Case, **more: Any) -> tuple[list[tuple[float, float]], list[bool], Asked]:
    asked = Asked()
    predictor: Any = asked
    scores, good = finding_scores(predictor, [case], **more)
    return scores, good, asked


def test_single_findings_are_scored_by_their_dice() -> None:
    """Of 30 rows, 17 give a Dice of 0.72 and 15 one of 0.67; what is absent is never found rightly."""
    case = _asking(
        [_turn("rows 30", "explicit")],
        [_turn("rows 17", "explicit")],
        [_turn("rows 15", "explicit")],
        [_turn("rows 29", "absent_same_set")],
    )
    scores, good, asked = _ask(case)
    assert len(asked.images) == 1 and np.array_equal(asked.images[0], case.rgb)
    judged = {int(quality): (words, right) for (quality, words), right in zip(scores, good, strict=True)}
    assert {rows: right for rows, (_, right) in judged.items()} == {30: True, 17: True, 15: False, 29: False}
    order = {question: -float(n) for n, question in enumerate(asked.questions, start=1)}
    assert all(words == order[f"rows {rows}"] for rows, (words, _) in judged.items()), (
        "the reply's own scores"
    )


def test_answers_with_no_or_several_outlines_are_left_out() -> None:
    case = _asking(
        [_turn("none", "explicit")], [_turn("both", "explicit")], [_turn("none", "absent_elsewhere")]
    )
    scores, good, asked = _ask(case)
    assert (scores, good) == ([], []) and sorted(asked.questions) == ["both", "none", "none"]


def test_names_kept_facts_and_absences_are_asked_in_fixed_shares() -> None:
    """Of 8 questions about a patient, 3 by name, 3 by kept facts and 2 about what is absent; follow-ups are not asked."""
    case = _asking(
        *([_turn(f"named {n}", "explicit"), _turn("later", "explicit")] for n in range(6)),
        *([_turn(f"taught {n}", "implicit", TAUGHT[n])] for n in range(6)),
        *([_turn(f"kept {n}", "implicit", KEPT[n])] for n in range(6)),
        *([_turn(f"absent {n}", "absent_same_set")] for n in range(6)),
        *([_turn(f"multi {n}", "multi")] for n in range(6)),
    )
    _, _, asked = _ask(case)
    assert [question.split()[0] for question in asked.questions] == ["named"] * 3 + ["kept"] * 3 + [
        "absent"
    ] * 2
    assert len(set(asked.questions)) == 8
    assert _ask(case)[2].questions == asked.questions != _ask(case, seed=2)[2].questions
    assert len(_ask(case, per_case=5)[2].questions) == 5


def test_without_a_kept_fact_one_of_the_others_is_asked() -> None:
    case = _asking(*([_turn(f"taught {n}", "implicit", TAUGHT[n])] for n in range(4)))
    assert _ask(case)[2].questions == ["taught 0"]


def test_the_curve_of_a_checkpoint_is_fitted_on_its_own_findings(tiny: MedSegR, tmp_path: Path) -> None:
    """Random weights: whatever they outline, what is counted is what is scored, and one outcome gives the identity."""
    save_checkpoint(tiny, tmp_path / "ck", {"version": "tiny-1", "licence": "CC0"}, "# card")
    case = _asking(*([_turn(f"Where is the liver, {n}?", "explicit")] for n in range(3)))
    curve, count = calibrate(tmp_path / "ck", [case])
    scores, good = finding_scores(Predictor.from_pretrained(tmp_path / "ck"), [case])
    assert count == len(scores) and curve == fit_curve(scores, good)


def test_a_checkpoint_is_calibrated_anew_without_touching_its_weights(tiny: MedSegR, tmp_path: Path) -> None:
    """A rule that is there already, and would deny everything, has no say in the new one; too few questions give none."""
    tiny.config = replace(tiny.config, denial=(0.0, 0.0, 1.0), calibration=(9.0, 9.0, 9.0))
    save_checkpoint(tiny, tmp_path / "ck", {"version": "tiny-1", "licence": "CC0", "kept": [1]}, "# card")
    before = {p.name: p.read_bytes() for p in (tmp_path / "ck").rglob("*") if p.suffix == ".safetensors"}
    case = _asking(*([_turn(f"Where is the liver, {n}?", "explicit")] for n in range(3)))
    record = recalibrate(tmp_path / "ck", [case])
    assert {
        p.name: p.read_bytes() for p in (tmp_path / "ck").rglob("*") if p.suffix == ".safetensors"
    } == before
    loaded = load_checkpoint(tmp_path / "ck")
    assert loaded.model.config == replace(
        tiny.config, denial=(), calibration=calibrate(tmp_path / "ck", [case])[0]
    )
    meta = read_meta(tmp_path / "ck")
    assert meta["kept"] == [1] and meta["calibration"]["patients_kept_out"] == 1
    assert record["denial"]["present"] == 3 and record["denial"]["absent"] == 0


def test_the_rule_for_denials_is_kept_and_used(
    tiny: MedSegR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsegr.training.fit_denial.ENOUGH", 2)
    save_checkpoint(tiny, tmp_path / "ck", {"version": "tiny-1", "licence": "CC0"}, "# card")
    lacking = Turn(
        "Where is the left kidney?", "\N{HORIZONTAL ELLIPSIS}", (), "absent_same_set", None, ("left kidney",)
    )
    case = _asking(
        *([_turn(f"Where is the liver, {n}?", "explicit")] for n in range(3)), *([lacking] for _ in range(3))
    )
    record = recalibrate(tmp_path / "ck", [case])
    loaded = Predictor.from_pretrained(tmp_path / "ck")
    assert len(loaded.config.denial) == 3 and loaded.config.denial == record["denial"]["rule"]
