"""Prequential scores: stored once, and computed from what the answer had and the correction says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from state_rows import SHAPE, block, corrected

from medsegr.rounds.corrections import Correction, Origin, Verdict
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.prequential import prequential
from medsegr.rounds.scores import Scores


def test_a_label_of_a_correction_is_scored_once(database: Database) -> None:
    first, second = corrected(database, liver=block(1)).id, corrected(database, liver=block(1)).id
    scores = Scores(database)
    scores.add(first, "liver", 0.25, "v0")
    scores.add(first, "cyst", 1.0, "v0")
    scores.add(second, "liver", 0.5, "v1")
    scores.add(first, "liver", 0.99, "v2")
    found = [(s.correction_id, s.label, s.dice, s.model_version) for s in scores.of()]
    assert found == [(first, "liver", 0.25, "v0"), (first, "cyst", 1.0, "v0"), (second, "liver", 0.5, "v1")]
    assert [s.dice for s in scores.of([second, "0" * 32])] == [0.5] and scores.of([]) == []


@pytest.mark.parametrize("dice", [-0.1, 1.1, float("nan")])
def test_a_dice_lies_between_0_and_1(database: Database, dice: float) -> None:
    with pytest.raises(StoreError, match="0 to 1"):
        Scores(database).add(corrected(database, liver=block(1)).id, "liver", dice, "v0")


def said(
    corrected: dict[str, np.ndarray],
    verdict: Verdict = Verdict.EDITED,
    origin: Origin = Origin.PANEL,
) -> tuple[Correction, list[np.ndarray]]:
    findings: list[dict[str, Any]] = [
        {"n": None, "label": label, "present": bool(m.any()), "voxels": int(m.sum())}
        for label, m in corrected.items()
    ]
    made = Correction("c", "t", "i", "ann", None, "now", verdict, None, None, findings, origin, "v0")
    return made, list(corrected.values())


def score(answer: dict[str, np.ndarray], truth: dict[str, np.ndarray], **said_as: Any) -> dict[str, float]:
    correction, masks = said(truth, **said_as)
    return prequential(correction, [{"label": label} for label in answer], list(answer.values()), masks)


def test_each_label_is_compared_with_its_correction() -> None:
    found = score({"liver": block(1), "spleen": block(2)}, {"spleen": block(2), "liver": block(3)})
    assert found == {"liver": 0.5, "spleen": 1.0}


def test_what_was_added_or_is_absent_counts() -> None:
    assert score({}, {"cyst": block(1)}) == {"cyst": 0.0}
    assert score({"cyst": block(1)}, {"cyst": block(0)}) == {"cyst": 0.0}
    assert score({}, {"cyst": block(0)}) == {"cyst": 1.0}  # both say "not present"
    assert score({}, {}) == {}


def test_another_name_makes_two_wrong_answers() -> None:
    assert score({"spleen": block(2)}, {"liver": block(2)}) == {"spleen": 0.0, "liver": 0.0}
    assert score({"Liver": block(2)}, {"liver": block(2)}) == {"liver": 1.0}


def test_findings_of_one_label_count_together() -> None:
    upper, lower = block(1), np.zeros(SHAPE, bool)
    lower[3:] = True
    correction, masks = said({"node": upper | lower})
    assert prequential(correction, [{"label": "node"}, {"label": "node"}], [upper, lower], masks) == {
        "node": 1.0
    }


def test_a_rejection_speaks_of_what_came_with_a_mask_only() -> None:
    answer = {"liver": block(1), "spleen": block(2)}
    assert score(answer, {"liver": block(1)}, verdict=Verdict.REJECTED) == {"liver": 1.0}
    assert score(answer, {}, verdict=Verdict.REJECTED) == {}


def test_a_label_map_scores_nothing_that_both_leave_empty() -> None:
    truth = {"liver": block(2), "spleen": block(0), "cyst": block(1), "node": block(0)}
    answer = {"liver": block(2), "node": block(1), "duct": block(1)}
    found = score(answer, truth, origin=Origin.DATASTORE)
    assert found == {"liver": 1.0, "cyst": 0.0, "node": 0.0}
