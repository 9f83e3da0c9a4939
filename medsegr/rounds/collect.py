"""Which corrections a round uses and what each says: one mask per structure and picture, the newest correction first to speak."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from medsegr.qa.facts import Concept
from medsegr.qa.mentions import mentioned
from medsegr.rounds.cases import Case, CaseStore, TrainingSlices
from medsegr.rounds.corrections import Correction, Origin, Verdict
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.examples import Drawn, concept_of
from medsegr.rounds.labels import markup_problem
from medsegr.rounds.tables import CorrectionRow, TurnRow, WithdrawalRow

logger = logging.getLogger(__name__)
PER_LABEL = 48
"""Pictures of one structure that a round reads at most, the newest first."""


@dataclass(frozen=True)
class Usable:
    """A case and what a round takes of it: number of the finding (from 0) -> name of the structure, as the label list has it."""

    case: Case
    findings: Mapping[int, str]

    @property
    def labels(self) -> frozenset[str]:
        """Names of the structures that it says something about."""
        return frozenset(self.findings.values())


@dataclass(frozen=True)
class Said:
    """What the database knows beside the cases: turn -> when it was last rejected, withdrawn rejections apart; turns that were
    about some slices only."""

    rejected: Mapping[str, str]
    in_part: frozenset[str]


def said_of_turns(database: Database) -> Said:
    """Read it."""
    query = select(CorrectionRow.turn_id, CorrectionRow.created).where(
        CorrectionRow.verdict == Verdict.REJECTED.value,
        CorrectionRow.turn_id.is_not(None),
        CorrectionRow.id.not_in(select(WithdrawalRow.correction_id)),
    )
    rejected: dict[str, str] = {}
    with database.session() as session:
        for turn, created in session.execute(query):
            rejected[str(turn)] = max(created, rejected.get(str(turn), ""))
        asked = session.execute(select(TurnRow.id, TurnRow.options)).all()
    return Said(rejected, frozenset(turn for turn, options in asked if _in_part(options)))


def usable(cases: Sequence[Case], names: Mapping[str, str], said: Said) -> list[Usable]:
    """What a round can use of the cases, which come oldest first: the last word on each turn, and of several corrections of one
    image the last word on each structure. An answer that was rejected later teaches nothing. `names`: lower-case name ->
    spelling."""
    taken: set[tuple[str, str]] = set()
    turns: set[str] = set()
    found = []
    for case in reversed(cases):
        correction = case.correction
        turn, image = correction.turn_id, correction.image_id
        if turn is not None:
            if turn in turns or said.rejected.get(turn, "") > correction.created:
                continue
            turns.add(turn)
        kept = {}
        for n, finding in enumerate(correction.findings):
            name = _spelt(finding["label"], names)
            if _says(correction, finding) and (image, name) not in taken:
                kept[n] = name
        if turn not in said.in_part:
            taken |= {(image, name) for name in kept.values()}
        if kept:
            found.append(Usable(case, kept))
    return found[::-1]


def corrected_labels(used: Sequence[Usable], untouched: Collection[tuple[str, str]] = ()) -> tuple[str, ...]:
    """Structures that clinicians drew, renamed or denied, in order of appearance; what was right already, in accepted answers
    or (`untouched`: ids of corrections with a lower-case label) in edited ones, only where nothing else was corrected."""
    edited = [
        label
        for u in used
        if u.case.correction.verdict is not Verdict.ACCEPTED
        for label in sorted(u.labels)
        if (u.case.correction.id, label.casefold()) not in untouched
    ]
    return tuple(dict.fromkeys(edited or [label for u in used for label in sorted(u.labels)]))


def readable(store: CaseStore, cases: Sequence[Case]) -> list[Case]:
    """The cases whose slices are whole; a damaged one is left out, and the log names it: it must not end all later rounds."""
    found = []
    for case in cases:
        try:
            store.read(case.correction.id)
        except StoreError:
            logger.error(
                "The slices of correction %s are lost or damaged; it is left out.", case.correction.id
            )
            continue
        found.append(case)
    return found


def pictures(store: CaseStore, used: Sequence[Usable], concepts: Mapping[str, Concept]) -> list[Drawn]:
    """Kept slices of the cases as pictures with their masks, `PER_LABEL` of a structure at most, the newest ones. Of corrections
    of single slices the newest speaks of its own. Raises `StoreError`."""
    counts: Counter[str] = Counter()
    taken: set[tuple[str, int, str]] = set()
    found: list[Drawn] = []
    for u in reversed(used):
        image, kept = u.case.correction.image_id, []
        for index, drawn in _drawn(store.read(u.case.correction.id), u, concepts):
            masks = {name: mask for name, mask in drawn.masks.items() if (image, index, name) not in taken}
            taken |= {(image, index, name) for name in masks}
            shown = [name for name, mask in masks.items() if mask.any()] or [""]
            if masks and any(counts[name] < PER_LABEL for name in shown):
                counts.update(shown)
                asked = tuple(name for name in drawn.asked if name in masks)
                kept.append(replace(drawn, masks=masks, asked=asked))
        found += kept[::-1]
    return found[::-1]


def _drawn(slices: TrainingSlices, used: Usable, concepts: Mapping[str, Concept]) -> list[tuple[int, Drawn]]:
    case, found = used.case, []
    asked = _asked(case, sorted(used.labels), concepts)
    for n, index in enumerate(slices.index.tolist()):
        masks: dict[str, NDArray[np.bool_]] = {}
        for k, name in used.findings.items():
            masks[name] = masks.get(name, np.zeros(slices.rgb.shape[1:3], np.bool_)) | slices.masks[k, n]
        title = f"{case.correction.id}_{index}"
        drawn = Drawn(title, case.patient_key, case.modality, slices.rgb[n], masks, case.question, asked)
        found.append((int(index), drawn))
    return found


def _asked(case: Case, labels: Sequence[str], concepts: Mapping[str, Concept]) -> tuple[str, ...]:
    """The structures that the clinician's question asked for: those that it names, else the only one that there is."""
    if not case.question.strip():
        return ()
    named = mentioned(case.question, (concept_of(label, concepts) for label in labels))
    return named or (tuple(labels) if len(labels) == 1 else ())


def _says(correction: Correction, finding: Mapping[str, Any]) -> bool:
    """Whether a finding is somebody's word: of a stock client's label map an empty label is none, since all are listed. A name
    that holds the model's own markup, from before such names were refused, cannot be learnt."""
    if markup_problem(finding["label"]):
        return False
    return bool(finding["present"] or correction.origin is Origin.PANEL or finding["n"] is not None)


def _spelt(label: str, names: Mapping[str, str]) -> str:
    plain = " ".join(label.split())
    return names.get(plain.casefold(), plain)


def _in_part(options: Mapping[str, Any] | None) -> bool:
    asked = options or {}
    return bool(asked.get("one_slice")) or asked.get("slices") not in (None, "", "all")
