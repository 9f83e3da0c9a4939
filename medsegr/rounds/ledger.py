"""The split ledger: every patient is assigned once to training, validation or test and never moves, so nothing that was
ever measured on is ever trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from medsegr.rounds.audit import SERVER, append
from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.tables import PatientRow, Split

SHARES: Mapping[str, float] = MappingProxyType({"train": 0.7, "val": 0.25, "test": 0.05})


@dataclass(frozen=True)
class Patient:
    """A line of the ledger, detached from the database."""

    key: str
    kind: str
    split: Split
    stratum: str
    assigned: str


class Ledger:
    """The ledger of one database. `shares` say what part of each stratum's patients goes where; they sum to 1."""

    def __init__(self, database: Database, shares: Mapping[str, float] = SHARES) -> None:
        self.database = database
        self.shares = {split: float(shares.get(split, 0.0)) for split in Split}
        if (
            not set(shares) <= {split.value for split in Split}
            or min(self.shares.values()) < 0
            or abs(sum(self.shares.values()) - 1) > 1e-6
        ):
            raise StoreError("The shares of train, val and test must be at least 0 and sum to 1.")

    def assign(
        self,
        patient_key: str,
        kind: str,
        stratum: str,
        *,
        session: Session | None = None,
        editor: str = SERVER,
    ) -> Split:
        """The patient's split. A patient who has none gets the one that is furthest behind its share among the patients
        of this stratum (`next_split`), for good; within `session` if one is given.
        """
        with self.database.writing(session) as own:
            found = own.get(PatientRow, patient_key)
            if found is not None:
                return Split(found.split)
            query = (
                select(PatientRow.split, func.count())
                .where(PatientRow.stratum == stratum)
                .group_by(PatientRow.split)
            )
            counts = {Split(split): int(count) for split, count in own.execute(query)}
            split = next_split(counts, self.shares)
            own.add(
                PatientRow(key=patient_key, kind=kind, split=split.value, stratum=stratum, assigned=now())
            )
            append(
                own,
                editor,
                "assign",
                patient_key,
                {"split": split.value, "kind": kind, "stratum": stratum},
            )
            return split

    def split_of(self, patient_key: str) -> Split | None:
        """The patient's split, None where the patient is unknown."""
        with self.database.session() as session:
            row = session.get(PatientRow, patient_key)
            return Split(row.split) if row else None

    def patients(self, split: Split | None = None) -> list[Patient]:
        """Every line, in the order of assignment; of one split if named."""
        query = select(PatientRow).order_by(PatientRow.assigned, PatientRow.key)
        if split is not None:
            query = query.where(PatientRow.split == split.value)
        with self.database.session() as session:
            return [
                Patient(row.key, row.kind, Split(row.split), row.stratum, row.assigned)
                for row in session.scalars(query)
            ]


def next_split(counts: Mapping[Split, int], shares: Mapping[Split, float]) -> Split:
    """The split with the largest deficit share * (n + 1) - count among n patients; of equals the first of train, val,
    test.
    """
    n = sum(counts.values())
    return max(Split, key=lambda split: round(shares[split] * (n + 1) - counts.get(split, 0), 9))
