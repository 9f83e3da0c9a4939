"""The public sets: every target is known, and what is built from them is sound."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from medsegr.qa.builder import build_file, evaluation_questions
from medsegr.qa.checks import check_file
from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.folders import read_labelled_sets
from medsegr.qa.reader import read_qa
from medsegr.qa.scenes import largest_groups, require_knowledge

BESIDE = Path(__file__).parents[3] / "shared" / "data"
DATA = Path(os.environ.get("MEDSEGR_DATA", BESIDE)) / "train"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the public images are not here (MEDSEGR_DATA)"),
]


def test_the_knowledge_base_covers_every_target_in_its_region(knowledge: KnowledgeBase) -> None:
    sets = read_labelled_sets(DATA)
    require_knowledge(sets, knowledge)
    wrong = [(s.name, n) for s in sets for n in s.targets if knowledge[n].region != s.region]
    assert wrong == []


def test_teeth_are_listed_by_jaw() -> None:
    teeth = next(s for s in read_labelled_sets(DATA) if s.name == "ufba_teeth_xr")
    assert largest_groups(teeth) == ("upper teeth", "lower teeth")


def test_a_built_file_is_sound_and_balanced(tmp_path: Path) -> None:
    out = tmp_path / "qa.jsonl"
    build_file(DATA, out, seed=1, count=3000)
    assert check_file(out) == []
    kinds = Counter(turn.kind for c in read_qa(out) for turn in c.turns)
    assert 0.1 < (kinds["absent_same_set"] + kinds["absent_elsewhere"]) / kinds.total() < 0.3
    assert kinds["implicit"] / kinds.total() > 0.3


def test_evaluation_covers_every_validation_image(knowledge: KnowledgeBase) -> None:
    questions = evaluation_questions(DATA, knowledge, "val", seed=1)
    expected = {i.image.name for s in read_labelled_sets(DATA) for i in s.images if i.split == "val"}
    assert {Path(c.image).name for c in questions} == expected
    absent = Counter(c.image for c in questions if not c.turns[0].targets)
    assert set(absent.values()) <= {1, 2}, "once by name and, where a held-out fact may be used, once by that"
    assert len(absent) == len(expected)
