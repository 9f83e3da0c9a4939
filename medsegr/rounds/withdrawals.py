"""Taking back: corrections that must not be used any more, and patients whose data must go. Both say which versions were
trained on them; nothing here changes a version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from medsegr.rounds.audit import append
from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.leftovers import Leftovers, finish_removals, removing, write_down
from medsegr.rounds.tables import (
    AuditRow,
    CaseRow,
    CorrectionRow,
    PatientRow,
    RoundRow,
    RoundStatus,
    TurnRow,
    VersionRow,
    WithdrawalRow,
)

REMOVED = "removed"
"""What stands for the image of a patient who was removed."""
REMOVAL = "remove_patient"


class InUse(StoreError):
    """A round that is open uses what should go."""


@dataclass(frozen=True)
class Removal:
    """What was taken back: ids of corrections, names of the versions that were trained on any of them, or grew out of one
    that was, in the order of their numbers, and the rounds whose working folders were deleted because of them.
    """

    corrections: tuple[str, ...]
    versions: tuple[str, ...]
    rounds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Withdrawal:
    """A correction that must not be used: of whom it is (`of_editor`), who withdrew it (`editor`) and why, and the versions that
    were trained on it or grew out of one that was."""

    correction: str
    of_editor: str
    why: str
    editor: str
    created: str
    versions: tuple[str, ...]


def read_time(text: str) -> datetime:
    """A date or time as people write it for `since`, in UTC unless it names a zone. Raises `ValueError` for anything else."""
    try:
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            '`since` must be a date or a time, such as "2026-03-01" or "2026-03-01T08:00:00+01:00".'
        ) from None


def withdraw(database: Database, correction_id: str, by: str, why: str) -> Removal:
    """Use this correction no more; its data stay. Raises `StoreError` for an unknown one."""
    return withdraw_all(database, [correction_id], by, why)


def withdraw_all(database: Database, correction_ids: Iterable[str], by: str, why: str) -> Removal:
    """Use these corrections no more; their data stay. Raises `StoreError` where one is unknown, and then none is withdrawn."""
    ids = tuple(dict.fromkeys(correction_ids))
    with database.writing() as session:
        if any(session.get(CorrectionRow, id_) is None for id_ in ids):
            raise StoreError("No correction has this id; `GET /medsegr/corrections` lists those that exist.")
        _mark(session, ids, by, why)
        for id_ in ids:
            append(session, by, "withdraw", id_, {"why": why})
        return Removal(ids, versions_trained_on(session, ids))


def withdraw_editor(
    database: Database, editor: str, by: str, why: str, since: datetime | None = None
) -> Removal:
    """Use none of this editor's corrections from now on, or of those that came at `since` (with its time zone) or later; their
    data stay. Corrections that the editor sends later count again.
    """
    query = select(CorrectionRow.id).where(CorrectionRow.editor == editor).order_by(CorrectionRow.created)
    detail: dict[str, Any] = {"why": why}
    if since is not None:
        detail["since"] = since.astimezone(UTC).isoformat(timespec="microseconds")
        query = query.where(CorrectionRow.created >= detail["since"])
    with database.writing() as session:
        ids = tuple(session.scalars(query))
        _mark(session, ids, by, why)
        append(session, by, "withdraw_editor", editor, {**detail, "corrections": list(ids)})
        return Removal(ids, versions_trained_on(session, ids))


def remove_patient(database: Database, key: str, by: str, images: Iterable[str] = ()) -> Removal:
    """Delete what is kept of a patient: slices, masks of turns and corrections, and texts; the images' names as well.

    The patient's images are those of its cases, and `images`, which the caller may know of (of an image that was asked about
    and never corrected nobody here knows whose it is). Rows stay, emptied, and so does the patient's line in the ledger: its
    corrections are withdrawn, and later ones are as well (`is_removed`). Working folders of rounds that saw a case go too,
    since their pages show images, and so do labels, skips and looks that name an image. Raises `StoreError` for an unknown
    patient, `InUse` while a round that uses a case is open.
    """
    return remove_patients(database, [key], by, images)


def remove_patients(database: Database, keys: Sequence[str], by: str, images: Iterable[str] = ()) -> Removal:
    """`remove_patient` for one person who has several lines in the ledger: all of them go together, or none. What an earlier
    removal could not delete goes as well."""
    # Nobody else may take the list for one of a transaction that failed.
    with removing(database), database.writing() as session:
        if any(session.get(PatientRow, key) is None for key in keys):
            raise StoreError("The ledger has no patient of this key.")
        own = select(CaseRow.correction_id).where(CaseRow.patient_key.in_(keys))
        ids = set(session.scalars(own))
        names = set(session.scalars(select(CorrectionRow.image_id).where(CorrectionRow.id.in_(own))))
        names = (names | set(images)) - {REMOVED}
        ids |= set(session.scalars(select(CorrectionRow.id).where(CorrectionRow.image_id.in_(names))))
        turns = set(session.scalars(select(TurnRow.id).where(TurnRow.image_id.in_(names))))
        corrections = tuple(sorted(ids))
        rounds = _rounds_with(session, ids)
        _mark(session, corrections, by, "The patient was removed.")
        _blank(session, turns, ids)
        versions = versions_trained_on(session, corrections)
        detail: dict[str, Any] = {"corrections": list(corrections), "versions": list(versions)}
        for key in keys:
            row = append(session, by, REMOVAL, key, {**detail, "rounds": list(rounds)})
        leftovers = Leftovers(tuple(sorted(turns)), corrections, rounds, tuple(sorted(names)))
        write_down(database, session.get_one(AuditRow, row), leftovers)
    finish_removals(database, row)  # only now: a transaction that fails must leave every file
    return Removal(corrections, versions, rounds)


def is_removed(session: Session, key: str) -> bool:
    """Whether this patient was removed."""
    query = select(AuditRow.id).where(AuditRow.action == REMOVAL, AuditRow.subject == key).limit(1)
    return session.scalar(query) is not None


def withdrawn(database: Database) -> dict[str, str]:
    """Correction id -> why it must not be used."""
    with database.session() as session:
        rows = session.execute(select(WithdrawalRow.correction_id, WithdrawalRow.why))
        return {row.correction_id: row.why for row in rows}


def withdrawals(database: Database, limit: int = 200) -> list[Withdrawal]:
    """What was withdrawn last, oldest first."""
    query = (
        select(WithdrawalRow, CorrectionRow.editor)
        .join(CorrectionRow, CorrectionRow.id == WithdrawalRow.correction_id)
        .order_by(WithdrawalRow.created.desc(), WithdrawalRow.correction_id.desc())
        .limit(limit)
    )
    with database.session() as session:
        trained = _trained(session)
        return [
            Withdrawal(
                row.correction_id,
                of_editor,
                row.why,
                row.editor,
                row.created,
                tuple(name for name, ids in trained.items() if row.correction_id in ids),
            )
            for row, of_editor in reversed(session.execute(query).all())
        ]


def mark_withdrawn(session: Session, correction_id: str, by: str, why: str) -> None:
    """Use this correction no more, within the caller's transaction."""
    _mark(session, [correction_id], by, why)


def versions_trained_on(session: Session, correction_ids: Iterable[str]) -> tuple[str, ...]:
    """Names of the versions whose rounds list one of the corrections under `data["train"]`, and of all that descend from
    them, in the order of their numbers.
    """
    wanted = set(correction_ids)
    return tuple(name for name, ids in _trained(session).items() if wanted & ids)


def _trained(session: Session) -> dict[str, set[str]]:
    """Version -> ids of the corrections that it, or one that it grew out of, was trained on; in the order of numbers."""
    of_round = {row.id: trained_ids(row.data) for row in session.execute(select(RoundRow.id, RoundRow.data))}
    found: dict[str, set[str]] = {}
    rows = select(VersionRow.name, VersionRow.parent, VersionRow.round_id, VersionRow.meta).order_by(
        VersionRow.number
    )
    for name, parent, round_id, meta in session.execute(rows):  # a parent has a lower number
        own = meta.get("data")  # a round that is taken up again may freeze other data than this version saw
        trained = trained_ids(own) if own else of_round.get(round_id, set())
        found[name] = trained | found.get(parent, set())
    return found


def trained_ids(data: dict[str, Any]) -> set[str]:
    """Ids of the corrections that a round was trained on: `train` is a list of ids or of {"id": …}, or maps ids to hashes."""
    return {entry["id"] if isinstance(entry, dict) else str(entry) for entry in data.get("train") or ()}


def _rounds_with(session: Session, ids: set[str]) -> tuple[int, ...]:
    """Rounds that were trained or judged on one of the corrections; raises `InUse` if one of them is open."""
    found = []
    for id_, status, data in session.execute(
        select(RoundRow.id, RoundRow.status, RoundRow.data).order_by(RoundRow.id)
    ):
        if ids & _texts_in(data):
            if status in (RoundStatus.QUEUED, RoundStatus.RUNNING):
                raise InUse(f"Round {id_} uses a case of this patient; wait for it, or cancel it first.")
            found.append(id_)
    return tuple(found)


def _texts_in(data: Any) -> set[str]:
    """Every text in plain JSON, keys as well."""
    if isinstance(data, str):
        return {data}
    parts = [*data, *data.values()] if isinstance(data, dict) else data if isinstance(data, list) else []
    return set().union(*(_texts_in(part) for part in parts))


def _mark(session: Session, ids: Iterable[str], by: str, why: str) -> None:
    for id_ in ids:
        if session.get(WithdrawalRow, id_) is None:
            session.add(WithdrawalRow(correction_id=id_, why=why, editor=by, created=now()))
    session.flush()


def _blank(session: Session, turns: set[str], corrections: set[str]) -> None:
    """Empty what a person wrote, and what the model answered."""
    session.execute(
        update(TurnRow)
        .where(TurnRow.id.in_(turns))
        .values(image_id=REMOVED, question="", history=[], answer="", findings=[], options={})
    )
    session.execute(
        update(CorrectionRow)
        .where(CorrectionRow.id.in_(corrections))
        .values(image_id=REMOVED, reason=None, answer=None)
    )
