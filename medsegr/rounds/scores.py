"""Prequential scores: how good the answer was, by the correction that came before anything was trained on it. They are
the evidence that grows with use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.tables import ScoreRow


@dataclass(frozen=True)
class Score:
    """Dice of one label of an answer against its correction, detached from the database."""

    correction_id: str
    label: str
    dice: float
    model_version: str
    created: str


class Scores:
    """Thread-safe access to the scores of one database. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(
        self,
        correction_id: str,
        label: str,
        dice: float,
        model_version: str,
        *,
        session: Session | None = None,
    ) -> None:
        """Store the score of a label, within `session` if one is given. The first one stands: a label of a correction is
        scored once, by the answer that was corrected.
        """
        if not 0 <= dice <= 1:
            raise StoreError(f"A Dice of {dice} is none; 0 to 1 is expected.")
        with self.database.writing(session) as own:
            query = select(ScoreRow.id).where(
                ScoreRow.correction_id == correction_id, ScoreRow.label == label
            )
            if own.scalar(query) is None:
                own.add(
                    ScoreRow(
                        correction_id=correction_id,
                        label=label,
                        dice=float(dice),
                        model_version=model_version,
                        created=now(),
                    )
                )

    def of(self, correction_ids: Iterable[str] | None = None) -> list[Score]:
        """The scores of these corrections (None: of all), oldest first."""
        query = select(ScoreRow).order_by(ScoreRow.created, ScoreRow.id)
        wanted = None if correction_ids is None else set(correction_ids)
        with self.database.session() as session:
            return [
                Score(row.correction_id, row.label, row.dice, row.model_version, row.created)
                for row in session.scalars(query)
                if wanted is None or row.correction_id in wanted
            ]
