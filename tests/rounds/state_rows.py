"""What the tests of the stores fill a state with, and where it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medsegr.rounds.cases import CaseStore, TrainingSlices
from medsegr.rounds.corrections import (
    Correction,
    CorrectionStore,
    NewCorrection,
    NewFinding,
    Origin,
    Verdict,
)
from medsegr.rounds.database import Database
from medsegr.rounds.store import NewTurn, TurnStore

SHAPE = (4, 6)
GEOMETRY = {"shape": list(SHAPE), "affine": None, "spacing_mm": None}


@dataclass
class Place:
    """A state folder and its database, which may be opened several times, as servers and trainers do."""

    folder: Path
    url: str | None
    opened: list[Database] = field(default_factory=list)

    def open(self) -> Database:
        """The state, opened anew."""
        self.opened.append(Database(self.folder, self.url))
        return self.opened[-1]

    def turns(self) -> TurnStore:
        """Its turns, opened anew."""
        store = TurnStore(self.folder, self.url)
        self.opened.append(store.database)
        return store


def block(rows: int) -> np.ndarray:
    """A mask whose first rows are inside."""
    mask = np.zeros(SHAPE, bool)
    mask[:rows] = True
    return mask


def answered(turns: TurnStore, image: str = "img", editor: str = "ann", **masks: np.ndarray) -> str:
    """A finished turn with a finding of each label."""
    turn = turns.add(NewTurn(image, "Where is it?", (), editor))
    turns.finish(
        turn,
        answer="Found.",
        findings=[{"n": n, "label": label} for n, label in enumerate(masks, start=1)],
        model_version="v0",
        latencies={},
        masks=[np.packbits(mask).tobytes() for mask in masks.values()],
        shape=SHAPE,
        geometry=GEOMETRY,
    )
    return turn


def corrected(
    database: Database,
    image: str = "img",
    editor: str = "ann",
    turn: str | None = None,
    verdict: Verdict = Verdict.EDITED,
    origin: Origin = Origin.PANEL,
    **masks: np.ndarray,
) -> Correction:
    """A stored correction with a finding of each label."""
    findings = tuple(
        NewFinding(n, label, np.packbits(mask).tobytes(), int(mask.sum()))
        for n, (label, mask) in enumerate(masks.items(), start=1)
    )
    new = NewCorrection(
        image, editor, verdict, origin, findings, SHAPE, GEOMETRY, turn, reason="Too small.", answer="Text."
    )
    return CorrectionStore(database).add(new)


def slices(k: int = 1, n: int = 2, seed: int = 0) -> TrainingSlices:
    """Random slices with masks of k findings."""
    rng = np.random.default_rng(seed)
    return TrainingSlices(
        rng.integers(0, 255, (n, *SHAPE, 3), np.uint8), rng.random((k, n, *SHAPE)) > 0.5, np.arange(3, 3 + n)
    )


def case(database: Database, patient: str, image: str = "img", editor: str = "ann") -> str:
    """A case of this patient; returns the correction's id."""
    stored = corrected(database, image, editor, liver=block(2))
    CaseStore(database).add(stored.id, patient, "dicom", "CT", "CT", slices())
    return stored.id
