"""What the database knows of images: which have a verdict, and which were asked about lately."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from medsegr.rounds.database import Database
from medsegr.rounds.tables import CorrectionRow, TurnRow


def corrected_images(database: Database) -> frozenset[str]:
    """Images with a correction of any verdict: a clinician has judged an answer there, also if it was withdrawn later."""
    with database.session() as session:
        return frozenset(session.scalars(select(CorrectionRow.image_id).distinct()))


def asked_since(database: Database, minutes: float) -> frozenset[str]:
    """Images that anybody asked about within the last `minutes`."""
    since = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="microseconds")
    with database.session() as session:
        return frozenset(session.scalars(select(TurnRow.image_id).where(TurnRow.created >= since).distinct()))
