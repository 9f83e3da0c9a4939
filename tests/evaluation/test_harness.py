"""The harness with a predictor whose masks are known: every figure of the summary worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medsegr.errors import MedSegRError
from medsegr.evaluation import run as run_module
from medsegr.evaluation.harness import Case, evaluate, summarise, truth_mask
from medsegr.evaluation.run import EvaluateOptions, questions, run
from medsegr.predictor import Finding, Reply
from medsegr.qa.reader import write_qa
from medsegr.qa.schema import Conversation, Review, Target, Turn

SIZE = (10, 20)
LIVER, SPLEEN, KIDNEY = (slice(0, 5), slice(0, 8)), (slice(0, 5), slice(10, 18)), (slice(6, 10), slice(0, 8))
PLACES = {"liver": LIVER, "spleen": SPLEEN, "kidney": KIDNEY}
VALUES = {"liver": 1, "spleen": 2, "kidney": 3}


def _mask(*names: str) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    for name in names:
        mask[PLACES[name]] = True
    return mask


class Known:
    """Finds what the question names before the bar, under the names after it: "liver|spleen" outlines the liver as spleen."""

    version = "known-1"
    scales: tuple[float, ...] = (1.0,)

    def __init__(self) -> None:
        self.images: list[tuple[str, str | None]] = []
        self.histories: list[list[tuple[str, str]]] = []

    def set_image(self, image: Path, modality: str | None = None) -> None:
        self.images.append((image.name, modality))

    def ask(self, question: str, history: Any = ()) -> Reply:
        self.histories.append(list(history))
        drawn, _, said = question.partition("|")
        names = [name for name in drawn.split("+") if name]
        labels = said.split("+") if said else names
        found = tuple(Finding(label, label, _mask(n), 0.8) for label, n in zip(labels, names, strict=True))
        return Reply(f"Answer to {question}.", found, {})


def _target(name: str, image: str) -> Target:
    return Target(name, name, f"{image}-mask.png", (VALUES[name],))


def _conversation(image: str, *turns: tuple[str, str, str], dataset: str = "big") -> Conversation:
    """turns: (question, truly shown names joined by "+", kind)."""
    made = tuple(
        Turn(
            q,
            "…",
            tuple(_target(n, image) for n in shown.split("+") if n),
            kind,
            None,
            () if shown else ("spleen",),
        )
        for q, shown, kind in turns
    )
    return Conversation(f"{image}-{turns}", f"{image}.png", "CT", dataset, image, "val", made)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    labels = np.zeros(SIZE, np.uint8)
    for name, value in VALUES.items():
        labels[PLACES[name]] = value
    for image in [*(f"i{n}" for n in range(6)), "s0"]:
        Image.fromarray(labels).save(tmp_path / f"{image}-mask.png")
        Image.fromarray(labels * 50).save(tmp_path / f"{image}.png")
    return tmp_path


def _answer(root: Path, *conversations: Conversation) -> list[Case]:
    seen: list[Case] = []
    cases = evaluate(Known(), conversations, root, seen.append)  # type: ignore[arg-type]
    assert seen == cases
    return cases


def test_truth_is_the_union_of_a_targets_values(root: Path) -> None:
    both = Target("organs", "organs", "i0-mask.png", (1, 2))
    assert np.array_equal(truth_mask(both, root), _mask("liver", "spleen"))


def test_a_right_a_half_right_and_a_missed_answer(root: Path) -> None:
    right, half, missed = _answer(
        root,
        _conversation("i0", ("liver", "liver", "explicit")),
        _conversation("i0", ("liver|liver", "liver+spleen", "multi")),
        _conversation("i0", ("", "kidney", "explicit")),
    )
    assert (right.dice, right.iou, right.emitted, right.expected, right.empty) == (1.0, 1.0, 1, 1, False)
    assert right.named and right.confidence == pytest.approx(0.8) and right.target == "liver"
    assert half.dice == pytest.approx(2 * 40 / (40 + 80)) and half.iou == pytest.approx(0.5)
    assert not half.named and half.target == "liver + spleen" and half.chose is None
    assert (missed.dice, missed.emitted, missed.empty, missed.confidence) == (0.0, 0, True, 0.0)


def test_choice_looks_at_the_mask_and_not_at_the_name(root: Path) -> None:
    known = _conversation("i0", ("liver+spleen", "liver+spleen", "multi"))
    rest = [
        _conversation("i0", ("liver", "liver", "explicit")),
        _conversation("i0", ("spleen|liver", "liver", "implicit")),
        _conversation("i0", ("liver+spleen|liver+liver", "liver", "explicit")),
        _conversation("i1", ("liver", "liver", "explicit")),
    ]
    cases = _answer(root, known, *rest)
    assert [c.chose for c in cases] == [None, True, False, False, None], (
        "a tie is no choice; i1 knows one target only"
    )
    assert [c.named for c in cases[1:3]] == [True, True]


def test_absent_structures(root: Path) -> None:
    kept_quiet, invented = _answer(
        root,
        _conversation("i0", ("", "", "absent_same_set")),
        _conversation("i0", ("spleen", "", "absent_elsewhere")),
    )
    assert (kept_quiet.empty, kept_quiet.dice, kept_quiet.target) == (True, 1.0, "spleen")
    assert (invented.empty, invented.dice, invented.emitted) == (False, 0.0, 1)


def test_history_is_what_was_really_said_and_an_image_is_set_once(root: Path) -> None:
    known = Known()
    conversations = [
        _conversation("i0", ("liver", "liver", "explicit"), ("spleen", "spleen", "explicit")),
        _conversation("i0", ("kidney", "kidney", "explicit")),
        _conversation("i1", ("liver", "liver", "explicit")),
    ]
    evaluate(known, conversations, root, lambda case: None)  # type: ignore[arg-type]
    assert known.images == [("i0.png", "CT"), ("i1.png", "CT")]
    assert known.histories == [[], [("liver", "Answer to liver.")], [], []]


def test_summary_by_hand(root: Path) -> None:
    """Five images of a big set, one of a small one, one set that is named apart."""
    conversations = []
    for n in range(5):
        image = f"i{n}"
        conversations += [
            # liver: right on 3 of 5 images, missed on 1, the spleen instead on 1 -> mean Dice 0.6
            _conversation(image, (("liver", "liver", "liver", "", "spleen|liver")[n], "liver", "explicit")),
            # spleen: always right, but on two images only -> too few cases to count
            *([_conversation(image, ("spleen", "spleen", "explicit"))] if n < 2 else []),
            # by a fact: kidney found on 4 of 5, on two of these under another name
            _conversation(
                image, (("kidney", "kidney|liver", "kidney|liver", "kidney", "")[n], "kidney", "implicit")
            ),
            # absent: kept quiet on 4 of 5
            _conversation(
                image, (("", "", "", "", "spleen")[n], "", ("absent_same_set", "absent_elsewhere")[n % 2])
            ),
        ]
    small = _conversation("s0", ("liver", "liver", "explicit"), dataset="small")
    summary = summarise(_answer(root, *conversations, small), small_sets=5)
    assert summary["questions"] == 5 + 2 + 5 + 5 + 1
    assert summary["images"] == {"big": 5, "small": 1}
    explicit, implicit = summary["explicit"], summary["implicit"]
    assert explicit["sets"] == {"big": pytest.approx(0.6)} and explicit["dice"] == pytest.approx(0.6)
    assert explicit["small_sets"] == {"small": 1.0} and explicit["questions"] == 8
    assert explicit["emission"] == explicit["t_acc"] == pytest.approx(7 / 8)
    assert explicit["named_right"] == pytest.approx(7 / 8), "the spleen under the liver's name is named right"
    # i0..i4 know liver and kidney, i0 and i1 the spleen as well; s0 has one target: no choice there
    assert explicit["chose_target_questions"] == 7
    assert explicit["chose_target"] == pytest.approx(5 / 7)
    assert implicit["dice"] == pytest.approx(0.8) and implicit["small_sets"] == {}
    assert implicit["named_right"] == pytest.approx(2 / 5) and implicit["chose_target"] == pytest.approx(
        4 / 5
    )
    assert summary["emission"] == pytest.approx(11 / 13)
    assert summary["n_acc"] == pytest.approx(4 / 5)
    assert summary["n_acc_same_set"] == pytest.approx(2 / 3) and summary["questions_absent_same_set"] == 3
    assert summary["n_acc_elsewhere"] == 1.0 and summary["questions_absent_elsewhere"] == 2


def test_sets_named_apart_do_not_move_the_mean(root: Path) -> None:
    big = [_conversation(f"i{n}", ("liver", "liver", "explicit")) for n in range(5)]
    odd = [_conversation(f"i{n}", ("", "liver", "explicit"), dataset="odd") for n in range(5)]
    cases = _answer(root, *big) + _answer(root, *odd)
    assert summarise(cases)["explicit"]["dice"] == pytest.approx(0.5)
    apart = summarise(cases, apart=("odd",))["explicit"]
    assert apart["dice"] == 1.0 and apart["sets"] == {"big": 1.0} and apart["small_sets"] == {"odd": 0.0}


def test_follow_ups_count_for_emission_and_not_for_the_first_questions(root: Path) -> None:
    cases = _answer(root, _conversation("i0", ("liver", "liver", "explicit"), ("", "spleen", "explicit")))
    summary = summarise(cases, small_sets=1)
    assert summary["explicit"]["questions"] == 1 and summary["explicit"]["emission"] == 1.0
    assert summary["emission"] == 0.5


def test_a_summary_of_nothing_is_nan() -> None:
    summary = summarise([])
    assert math.isnan(summary["n_acc"]) and math.isnan(summary["explicit"]["chose_target"])


def _file(root: Path) -> Path:
    rejected = _conversation("i2", ("liver", "liver", "explicit"))
    conversations = [
        *(_conversation(f"i{n}", ("liver", "liver", "explicit")) for n in (1, 0)),
        Conversation(**{**vars(rejected), "review": Review("rejected")}),
        Conversation(**{**vars(_conversation("i3", ("liver", "liver", "explicit"))), "split": "train"}),
    ]
    write_qa(root / "qa.jsonl", conversations)
    return root / "qa.jsonl"


def test_questions_of_a_file_are_grouped_by_image_and_thinned(root: Path) -> None:
    path = _file(root)
    found, folder = questions(EvaluateOptions(out=root / "out", qa=path))
    assert [c.image for c in found] == ["i0.png", "i1.png"] and folder == root.resolve()
    assert [c.image for c in questions(EvaluateOptions(root, qa=path, every=2))[0]] == ["i0.png"]
    with pytest.raises(MedSegRError, match="no question of split 'test'"):
        questions(EvaluateOptions(root, qa=path, split="test"))
    with pytest.raises(MedSegRError, match="exactly one"):
        questions(EvaluateOptions(root))


def test_a_run_writes_figures_and_one_row_per_answer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known()
    monkeypatch.setattr(run_module, "Predictor", SimpleNamespace(from_pretrained=lambda name, device: known))
    metrics = run(EvaluateOptions(out=root / "out", qa=_file(root), scales=(1.0, 2.0)))
    assert known.scales == (1.0, 2.0) and metrics["checkpoint"] == "known-1" and metrics["questions"] == 2
    assert json.loads((root / "out" / "metrics.json").read_text())["emission"] == 1.0
    rows = (root / "out" / "per_case.csv").read_text().splitlines()
    assert len(rows) == 3 and rows[0].startswith("conversation,dataset,modality")
