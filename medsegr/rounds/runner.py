"""A round from its start to the gate's decision: `python -m medsegr.rounds.runner --state DIR --round N --checkpoint DIR`.

Freeze the data, train a challenger from the champion, ask both the same questions, decide, and put a version that is adopted in
charge. A round that was killed is taken up again with the data that it froze.
"""

from __future__ import annotations

import argparse
import filecmp
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import select
from sqlalchemy.orm import Session

from medsegr.errors import MedSegRError
from medsegr.golden import ask_golden, read_golden, write_golden
from medsegr.model.checkpoint import read_config
from medsegr.predictor import Predictor
from medsegr.qa.facts import Concept, load_knowledge, site_concepts
from medsegr.rounds.cases import CaseStore
from medsegr.rounds.challenger import ChallengerOptions, make_challenger
from medsegr.rounds.collect import Usable, corrected_labels, pictures, readable, said_of_turns, usable
from medsegr.rounds.contradictions import contradiction
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.examples import concept_of
from medsegr.rounds.gate import Decision, GateConfig, decide, too_few
from medsegr.rounds.labels import LabelList
from medsegr.rounds.launching import TORCHRUN_VARIABLE, train_together
from medsegr.rounds.registry import Registry, Version
from medsegr.rounds.replay import REPLAY, read_replay
from medsegr.rounds.report import write_report
from medsegr.rounds.rounds_log import Round, RoundLog
from medsegr.rounds.scores import Scores
from medsegr.rounds.scoring import (
    Question,
    answer,
    case_questions,
    compared,
    regression_questions,
    remembered_questions,
    validation_patients,
)
from medsegr.rounds.tables import RoundStatus, Split, WithdrawalRow
from medsegr.rounds.tracking import Tracker
from medsegr.rounds.version_files import remove

logger = logging.getLogger(__name__)
CHALLENGER = "challenger"
SECONDS_BETWEEN = 1.0
"""Progress is stored at most this often."""


@dataclass(frozen=True)
class Frozen:
    """What a round is trained and judged on."""

    train: tuple[Usable, ...]
    val: tuple[Usable, ...]
    corrected: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Ids and hashes, as the log keeps them."""
        sides = {"train": self.train, "val": self.val}
        return {
            **{name: [u.case.correction.id for u in used] for name, used in sides.items()},
            "sha256": {u.case.correction.id: u.case.sha256 for used in sides.values() for u in used},
            "corrected": list(self.corrected),
        }


class Progress:
    """Stores how far a round is, now and then; raises `StoreError` once the round was cancelled."""

    def __init__(self, log: RoundLog, round_id: int) -> None:
        self.log, self.round_id, self._last, self._phase = log, round_id, 0.0, ""

    def __call__(self, phase: str, done: int, total: int) -> None:
        moment = time.monotonic()
        if phase != self._phase or done == total or moment - self._last >= SECONDS_BETWEEN:
            self.log.progress(self.round_id, phase, done, total)
            self._last, self._phase = moment, phase


def run_round(state: Path, round_id: int, checkpoint: Path, url: str | None = None) -> RoundStatus:
    """Run a queued, failed or interrupted round; `checkpoint` is the one that the server was started with. Raises `MedSegRError`
    where it cannot be run; what goes wrong on the way ends it as FAILED."""
    database = Database(state, url)
    log, registry = RoundLog(database), Registry(database, checkpoint)
    champion = registry.current()
    this = log.start(round_id, champion.name)
    tracker = Tracker(
        database.paths.rounds / "tracking", round_id, {"champion": champion.name, **_plain(this.options)}
    )
    try:
        decision, version = _run(database, log, registry, champion, this, tracker)
    except MedSegRError as error:
        if log.get(round_id).open:
            log.finish(round_id, RoundStatus.FAILED, error=str(error))
        tracker.finish("The round ended without a decision.", log.get(round_id).status)
        return log.get(round_id).status
    except Exception as error:
        logger.exception("Round %d failed.", round_id)
        log.finish(
            round_id,
            RoundStatus.FAILED,
            error=f"The round failed ({type(error).__name__}); the log says where.",
        )
        tracker.finish("failed", RoundStatus.FAILED)
        raise
    name = version.name if version else None
    try:
        with database.writing() as session:
            if version and decision.adopted:
                data = log.get(round_id).data
                _check_withdrawn(session, [*data["train"], *data["val"]])
                registry.promote(
                    version.name, this.editor, decision.sentence, expected=champion.name, session=session
                )
            log.finish(round_id, decision.status, decision.to_json(), name, session=session)
    except (
        MedSegRError
    ) as error:  # another version took charge, data were withdrawn, or the round was cancelled
        if log.get(round_id).open:
            log.finish(round_id, RoundStatus.FAILED, decision.to_json(), name, error=str(error))
        tracker.finish("The version could not take charge.", log.get(round_id).status)
        return log.get(round_id).status
    tracker.finish(decision.sentence, decision.status)
    database.dispose()
    return decision.status


def _run(
    database: Database, log: RoundLog, registry: Registry, champion: Version, this: Round, tracker: Tracker
) -> tuple[Decision, Version | None]:
    """The decision and, if it is adopted, the registered challenger."""
    store, progress = CaseStore(database), Progress(log, this.id)
    learnt = log.get(champion.round_id).data.get("train", []) if champion.round_id else []
    frozen = freeze(store, spelling(database, champion.targets), this.data, learnt)
    if not frozen.train:
        raise MedSegRError("There is no correction to train on yet; correct some answers first.")
    folder = database.paths.rounds / str(this.id)
    folder.mkdir(exist_ok=True)
    work = folder / CHALLENGER
    data = {**frozen.to_json(), "champion": champion.name}
    if (
        this.data and this.data != data
    ):  # withdrawn meanwhile, or another champion: nothing of before is of use
        work.with_suffix(".state").unlink(missing_ok=True)
    same = not this.data or this.data == data
    log.freeze(this.id, data)
    labels = LabelList(database, tuple(registry.base.targets))
    for name in dict.fromkeys(n for u in frozen.train for n in u.labels):
        labels.add(name, {}, this.editor)
    concepts = known_concepts(database, champion.directory)
    options = ChallengerOptions.from_json(this.options)
    drawn = pictures(store, frozen.train, concepts)
    gate = GateConfig(**{k: v for k, v in this.options.items() if k in GateConfig.__dataclass_fields__})
    side = read_config(champion.directory).image_size
    validating = pictures(store, frozen.val, concepts)
    asked = case_questions(validating, concepts, side, options.seed)
    open_gate = this.options.get("gate") is False  # for experiments: what would happen without a gate
    early = too_few(validation_patients(asked), frozen.corrected, gate) or contradiction(
        [*drawn, *validating]
    )
    if early and not open_gate:
        _record(early, tracker)
        write_report(folder, this, champion.name, None, early, [], [], [], log)
        return early, None
    made = registry.of_round(this.id) if same else None
    if made is None and not _train_in_group(database, this, champion, work):
        losses = partial(_record_losses, tracker)
        make_challenger(
            champion.directory, drawn, concepts, work, options, progress, losses, fresh=frozen.corrected
        )
    directory = made.directory if made else work
    old = _old_questions(champion, this, concepts, options.seed)
    asked += old
    before = answer(champion.directory, asked, options.device, partial(progress, "asking the champion"))
    after = answer(directory, asked, options.device, partial(progress, "asking the challenger"))
    since = []
    if old and _grew_from(champion, registry.base):
        first = answer(
            registry.base.directory, old, options.device, partial(progress, "asking the first version")
        )
        since = compared(old, first, after[-len(old) :])
    decision = decide(compared(asked, before, after), frozen.corrected, gate, since)
    if open_gate:
        decision = Decision(RoundStatus.ADOPTED, "Adopted without a gate.", decision.rows, decision.numbers)
    if made is None and decision.adopted:
        _refresh_golden(directory)
        told = decision.to_json()
        kept = {"metrics": told["numbers"], "decision": told, "data": frozen.to_json()}
        made = registry.register(work, champion.name, this.id, kept, editor=this.editor)
    if work.exists():
        remove(work)  # of one that is not adopted, the figures are enough
    _record(decision, tracker)
    challenger = made.name if made else None
    write_report(folder, this, champion.name, challenger, decision, asked, before, after, log)
    return decision, made


def _old_questions(
    champion: Version, this: Round, concepts: Mapping[str, Concept], seed: int
) -> list[Question]:
    """About what shipped: the regression set, and what it has no case of, unless the round asks for a part of the set only."""
    pictures, most = read_replay(champion.directory), int(this.options.get("regression_pictures", 0))
    asked = regression_questions(pictures["regression"], seed, most, concepts, champion.targets)
    return asked if most else asked + remembered_questions(pictures["replay"], asked, concepts, seed)


def _grew_from(champion: Version, base: Version) -> bool:
    """Whether the champion is a later version of `base` with its encoder's maps, so that both can be asked about them. A server
    that was updated may be started with another checkpoint than its versions grew out of."""
    kept, first = champion.directory / REPLAY, base.directory / REPLAY
    return champion.name != base.name and first.is_file() and filecmp.cmp(kept, first, shallow=False)


def _train_in_group(database: Database, this: Round, champion: Version, work: Path) -> bool:
    """Train in several processes, where the round or this machine's settings ask for them; whether they do."""
    processes = int(this.options.get("processes", 1))
    several = processes > 1 or bool(os.environ.get(TORCHRUN_VARIABLE))
    if several:
        train_together(database, this.id, champion.directory, work, processes)
    return several


def freeze(
    store: CaseStore,
    names: Mapping[str, str],
    data: Mapping[str, Any] | None = None,
    learnt: Sequence[str] = (),
) -> Frozen:
    """The corrections that count now, by split; of those only the ones that `data` names, where a round is taken up again.
    `names` spells labels, see `usable`. No image that validates or is kept for tests trains, whatever the ledger says of its
    patient. What the round must gain on is what is new: structures of corrections that are not among the ids `learnt`, which the
    champion was trained on, or of all where none is new."""
    said = said_of_turns(store.database)
    apart = [store.cases(split, include_withdrawn=True) for split in (Split.VAL, Split.TEST)]
    held = {case.correction.image_id for cases in apart for case in cases}
    sides = []
    for split in (Split.TRAIN, Split.VAL):
        cases = store.cases(split)
        if split is Split.TRAIN:
            cases = [case for case in cases if case.correction.image_id not in held]
        if data:
            named = set(data[split.value])
            cases = [case for case in cases if case.correction.id in named]
        sides.append(tuple(usable(readable(store, cases), names, said)))
    train, val = sides
    new = [used for used in train if used.case.correction.id not in set(learnt)]
    right = {(s.correction_id, s.label.casefold()) for s in Scores(store.database).of() if s.dice >= 1}
    return Frozen(train, val, corrected_labels(new or train, right))


def spelling(database: Database, targets: Sequence[str]) -> dict[str, str]:
    """Lower-case name -> how the label list, or the model, spells it."""
    known = (*LabelList(database, ()).names(), *targets)
    return {name.casefold(): name for name in known}


def known_concepts(database: Database, champion: Path) -> dict[str, Concept]:
    """The knowledge base, what the champion's directory adds to it, and what clinicians said of the labels that they added, by
    name. What they say now goes beside the knowledge base, and before what they said when the champion was made."""
    shipped = load_knowledge().concepts
    concepts = {**site_concepts(champion), **shipped}
    for label in LabelList(database, ()).added():
        if label.name not in concepts or any(label.knowledge.values()):
            concepts[label.name] = concept_of(label.name, shipped, dict(label.knowledge))
    return concepts


def _check_withdrawn(session: Session, used: Sequence[str]) -> None:
    """Raises `StoreError` where a correction that was trained or judged on has been withdrawn meanwhile."""
    query = select(WithdrawalRow.correction_id).where(WithdrawalRow.correction_id.in_(used)).limit(1)
    if session.scalar(query) is not None:
        raise StoreError("Corrections of this round were withdrawn while it ran; run another one.")


def _refresh_golden(directory: Path) -> None:
    """The golden question shows that weights and libraries do what they did when the version was made: ask it anew. Raises
    `CheckpointError` where the challenger cannot answer it at all."""
    golden = read_golden(directory)
    if golden is None:
        return
    predictor = Predictor.from_pretrained(directory)
    if ask_golden(predictor, golden) < golden.min_dice:
        write_golden(directory, predictor, golden.image.pixels, golden.question)


def _record_losses(tracker: Tracker, step: int, losses: Mapping[str, float]) -> None:
    for name, value in losses.items():
        tracker.metric(name, value, step)


def _record(decision: Decision, tracker: Tracker) -> None:
    for row in decision.rows:
        for step, value in enumerate((row.before, row.after)):
            tracker.metric(f"dice/{row.kind}/{row.label}", value, step)
    for name, value in decision.numbers.items():
        if value == value:
            tracker.metric(name, value, 1)


def _plain(options: Mapping[str, Any]) -> dict[str, str | int | float | bool | None]:
    """Settings for the records: short values, without what somebody wrote as a reason."""
    kinds = str | int | float | bool
    return {k: v for k, v in options.items() if isinstance(v, kinds) and k != "reason"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the round's own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--round", type=int, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        status = run_round(given.state, given.round, given.checkpoint, os.environ.get("MEDSEGR_DATABASE"))
    except MedSegRError as error:
        logger.error("%s", error)
        return 1
    return 1 if status is RoundStatus.FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
