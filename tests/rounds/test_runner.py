"""A whole round on a tiny model: it is judged, adopted or refused, taken up after a kill, and ended when it is cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from medsegr.model.checkpoint import read_meta, save_checkpoint
from medsegr.model.medsegr import MedSegR
from medsegr.qa.facts import load_knowledge
from medsegr.rounds import runner
from medsegr.rounds.cases import CaseStore, TrainingSlices
from medsegr.rounds.corrections import CorrectionStore, NewCorrection, NewFinding, Origin, Verdict
from medsegr.rounds.database import Database
from medsegr.rounds.examples import Drawn, training_case
from medsegr.rounds.gate import Decision, GateConfig, Scored, decide
from medsegr.rounds.ledger import Ledger
from medsegr.rounds.registry import Registry
from medsegr.rounds.replay import REPLAY, write_replay
from medsegr.rounds.rounds_log import Round, RoundLog
from medsegr.rounds.scoring import Answered, Question, answer
from medsegr.rounds.tables import RoundStatus, Split
from medsegr.rounds.tracking import Tracker

SIDE = 64
NEW = "liver cyst"
FAST = {
    "steps": 150, "minutes": 0, "learning_rate": 5e-3, "images": 4, "masks": 8, "variants": 1, "bf16": False, "full": True,
    "distil": False, "regression": False, "blend": 1.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own tests are in `test_tracking`; making its database takes longer than a round here."""
    monkeypatch.setattr(Tracker, "_log_to_mlflow", lambda self, decision, status: None)


@pytest.fixture
def champion(tiny: MedSegR, tmp_path: Path) -> Path:
    """The checkpoint that the server was started with."""
    save_checkpoint(tiny, tmp_path / "champion", {"version": "tiny-1", "licence": "CC0"}, "# card")
    return tmp_path / "champion"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """An empty state."""
    return Database(tmp_path / "state")


def _correct(database: Database, patient: int, label: str = NEW, size: int = 22) -> Split:
    """Store a correction of a bright square, or of a corner of it, drawn where the model had nothing; returns its patient's
    split."""
    rng = np.random.default_rng(patient)
    mask = np.zeros((SIDE, SIDE), np.bool_)
    row, column = rng.integers(4, 36, 2)
    mask[row : row + 22, column : column + 22] = True
    rgb = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
    rgb[mask] += 150
    mask[row + size :] = mask[:, column + size :] = False
    finding = NewFinding(None, label, np.packbits(mask).tobytes(), int(mask.sum()))
    stored = CorrectionStore(database).add(
        NewCorrection(f"img{patient}", "ann", Verdict.EDITED, Origin.PANEL, (finding,), mask.shape, {})
    )
    slices = TrainingSlices(rgb[None], mask[None, None], np.zeros(1, np.int64))
    CaseStore(database).add(stored.id, f"p{patient}", "image", label, "CT", slices)
    split = Ledger(database).split_of(f"p{patient}")
    assert split is not None
    return split


def _run(database: Database, champion: Path, **options: object) -> Round:
    log = RoundLog(database)
    this = log.create("hand", "ann", {**FAST, **options})
    runner.run_round(database.folder, this.id, champion)
    return log.get(this.id)


def test_without_corrections_a_round_says_so(database: Database, champion: Path) -> None:
    ended = _run(database, champion)
    assert ended.status is RoundStatus.FAILED
    assert ended.error and "no correction to train on" in ended.error


def test_a_round_is_collecting_until_there_are_validation_patients(
    database: Database, champion: Path
) -> None:
    splits = [_correct(database, n) for n in range(3)]
    assert Split.TRAIN in splits
    ended = _run(database, champion, steps=1)
    assert ended.status is RoundStatus.COLLECTING
    assert "more validation patient" in ended.decision["sentence"]
    assert ended.decision["numbers"]["missing"] > 0
    assert not ended.progress  # nothing is trained that could not be judged
    page = database.paths.rounds / str(ended.id) / "page.html"
    assert "more validation patient" in page.read_text(encoding="utf-8")
    assert Registry(database, champion).current().name == "tiny-1"


def test_corrections_that_contradict_one_another_train_nothing(database: Database, champion: Path) -> None:
    splits = []
    for n in range(13):
        sizes = (12, 22) if n % 2 else (22, 12)
        splits += [
            _correct(database, n, label, size) for label, size in zip(("cup", NEW), sizes, strict=True)
        ]
    assert splits.count(Split.VAL) >= 6
    ended = _run(database, champion, steps=1)
    assert ended.status is RoundStatus.REFUSED and "contradict" in ended.decision["sentence"]
    assert not ended.progress and ended.challenger is None
    page = database.paths.rounds / str(ended.id) / "page.html"
    assert "contradict one another" in page.read_text(encoding="utf-8")
    assert Registry(database, champion).current().name == "tiny-1"


def test_a_round_that_teaches_is_adopted_and_one_that_does_not_is_refused(
    database: Database, champion: Path
) -> None:
    splits = [_correct(database, n) for n in range(13)]
    assert splits.count(Split.VAL) >= 3
    refused = _run(database, champion, steps=1)
    assert refused.status is RoundStatus.REFUSED and "useful" in refused.decision["sentence"]
    registry = Registry(database, champion)
    assert registry.current().name == "tiny-1" and refused.challenger is None
    assert not (database.paths.rounds / str(refused.id) / "challenger").exists()
    adopted = _run(database, champion)
    assert adopted.status is RoundStatus.ADOPTED, adopted.decision
    current = registry.current()
    assert current.name == adopted.challenger and current.round_id == adopted.id
    assert current.targets == ("liver", "left kidney", NEW)
    assert set(adopted.data["train"]).isdisjoint(adopted.data["val"])
    assert len(adopted.data["val"]) == splits.count(Split.VAL)
    row = next(r for r in adopted.decision["rows"] if r["label"] == NEW)
    assert row["before"] == 0 and row["after"] > 0.5
    page = (database.paths.rounds / str(adopted.id) / "page.html").read_text(encoding="utf-8")
    assert "Adopted" in page and NEW in page
    assert registry.verify(current.name) is None
    learnt = read_meta(current.directory)["learnt"]
    assert learnt["data"]["sha256"] == adopted.data["sha256"] and learnt["metrics"]["gain"] > 0
    assert learnt["decision"]["sentence"] == adopted.decision["sentence"]


def test_a_round_is_judged_by_what_is_new_to_the_champion(database: Database) -> None:
    for n in range(4):
        _correct(database, n)
    store = CaseStore(database)
    first = runner.freeze(store, {})
    assert first.corrected == (NEW,)
    learnt = [used.case.correction.id for used in first.train]
    assert runner.freeze(store, {}, None, learnt).corrected == (NEW,)  # nothing new: by all
    n = 4
    while _correct(database, n, "gallstone") is not Split.TRAIN:
        n += 1
    assert set(runner.freeze(store, {}).corrected) == {NEW, "gallstone"}
    later = runner.freeze(store, {}, None, learnt)
    assert later.corrected == ("gallstone",) and len(later.train) == len(first.train) + 1


def test_what_shipped_is_compared_with_the_first_version_too(
    database: Database, champion: Path, tiny: MedSegR, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    rgb[8:40, 8:40] = 120
    parts = {}
    for part, name in (("regression", "liver"), ("replay", "left kidney")):
        drawn = Drawn(name, "p", "CT", rgb, {name: rgb[..., 0] > 0})
        parts[part] = [training_case(drawn, load_knowledge().concepts, SIDE, 1)]
    write_replay(champion / REPLAY, tiny, parts)
    for n in range(13):
        _correct(database, n)
    _run(database, champion, steps=1, gate=False)
    second = Registry(database, champion).current().directory
    asked: list[tuple[Path, list[str]]] = []
    compared: list[Sequence[Scored]] = []

    def note(checkpoint: Path, questions: Sequence[Question], *others: object) -> list[Answered]:
        asked.append((checkpoint, [q.kind for q in questions]))
        return answer(checkpoint, questions)

    def judge(
        scores: Sequence[Scored], labels: Sequence[str], config: GateConfig, since: Sequence[Scored]
    ) -> Decision:
        compared.append(since)
        return decide(scores, labels, config, since)

    monkeypatch.setattr(runner, "answer", note)
    monkeypatch.setattr(runner, "decide", judge)
    _run(database, champion, steps=1)
    (before, all_kinds), (after, _), (first, old) = asked
    assert before == second and first == champion and after not in (first, before)
    assert {"regression", "remembered"} <= set(old) and all_kinds[-len(old) :] == old
    assert [score.kind for score in compared[0]] == old
    asked.clear()
    write_replay(champion / REPLAY, tiny, {"regression": parts["replay"]})  # the server was updated
    _run(database, champion, steps=1)
    assert len(asked) == 2 and champion not in [checkpoint for checkpoint, _ in asked]


def test_a_killed_round_is_taken_up_again(
    database: Database, champion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(13):
        _correct(database, n)

    def killed(*args: object, **kwargs: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner, "make_challenger", killed)
        _run(database, champion, steps=1)
    log = RoundLog(database)
    (left,) = log.rounds()
    assert left.status in (RoundStatus.RUNNING, RoundStatus.FAILED)
    assert runner.run_round(database.folder, left.id, champion) is RoundStatus.REFUSED


def test_a_cancelled_round_ends(database: Database, champion: Path) -> None:
    for n in range(13):
        _correct(database, n)
    log = RoundLog(database)
    this = log.create("hand", "ann", FAST)

    class Cancelling(runner.Progress):
        def __call__(self, phase: str, done: int, total: int) -> None:
            if phase == "training" and log.get(this.id).open:
                log.cancel(this.id, "ann")
            super().__call__(phase, done, total)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "Progress", Cancelling)
        assert runner.run_round(database.folder, this.id, champion) is RoundStatus.CANCELLED
    assert Registry(database, champion).versions()[1:] == []
