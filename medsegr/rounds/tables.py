"""The database's layout. A change here needs a new number and a step in `migrations`."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class TurnStatus(StrEnum):
    """Where a question stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Verdict(StrEnum):
    """What a clinician says about an answer."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"


class Origin(StrEnum):
    """Which way a correction came: about one turn, or as a label map of MONAI Label's datastore."""

    PANEL = "panel"
    DATASTORE = "datastore"


class Base(DeclarativeBase):
    """Parent of the mapped tables."""


class SchemaVersion(Base):
    """One row: the layout of this database."""

    __tablename__ = "schema_version"
    version: Mapped[int] = mapped_column(primary_key=True)


class TurnRow(Base):
    """A question and what became of it."""

    __tablename__ = "turns"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    image_id: Mapped[str] = mapped_column(Text, index=True)
    editor: Mapped[str] = mapped_column(Text)
    client_id: Mapped[str | None] = mapped_column(Text)
    created: Mapped[str] = mapped_column(String(32), index=True)
    owner: Mapped[str] = mapped_column(Text)
    question: Mapped[str] = mapped_column(Text)
    history: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    options: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16), index=True)
    answer: Mapped[str | None] = mapped_column(Text)
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    model_version: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    latencies: Mapped[dict[str, float]] = mapped_column(JSON)


class CorrectionRow(Base):
    """What a clinician made of an answer. `turn_id` is null for a label map that follows no question."""

    __tablename__ = "corrections"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    turn_id: Mapped[str | None] = mapped_column(ForeignKey("turns.id"), index=True)
    image_id: Mapped[str] = mapped_column(Text, index=True)
    editor: Mapped[str] = mapped_column(Text, index=True)
    client_id: Mapped[str | None] = mapped_column(Text)
    created: Mapped[str] = mapped_column(String(32), index=True)
    verdict: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(Text)
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    origin: Mapped[str] = mapped_column(String(16))
    model_version: Mapped[str | None] = mapped_column(Text)


class Split(StrEnum):
    """What a patient's cases are for. A patient is assigned once and never moves."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class RoundStatus(StrEnum):
    """Where a round stands. `collecting`: too few validation cases to judge a challenger, so none was
    trained."""

    QUEUED = "queued"
    RUNNING = "running"
    ADOPTED = "adopted"
    REFUSED = "refused"
    COLLECTING = "collecting"
    FAILED = "failed"
    CANCELLED = "cancelled"


class PatientRow(Base):
    """The split ledger. `key` is a keyed hash, `kind` what it was made of: "dicom", "patients.csv" or "image". Rows are added and
    never changed; a removed patient keeps its row, and the audit says when it was removed."""

    __tablename__ = "patients"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    split: Mapped[str] = mapped_column(String(8), index=True)
    stratum: Mapped[str] = mapped_column(Text, index=True)
    assigned: Mapped[str] = mapped_column(String(32))


class CaseRow(Base):
    """What a correction gives to the rounds: its patient, and the training slices that were kept of its image."""

    __tablename__ = "cases"
    correction_id: Mapped[str] = mapped_column(ForeignKey("corrections.id"), primary_key=True)
    patient_key: Mapped[str] = mapped_column(ForeignKey("patients.key"), index=True)
    modality: Mapped[str | None] = mapped_column(String(16))
    slices: Mapped[int] = mapped_column()
    sha256: Mapped[str] = mapped_column(String(64))


class ScoreRow(Base):
    """Prequential score: Dice of the answer of the model in charge against the correction, before anything was trained on it.
    `dice` is 1 where both say "not present"."""

    __tablename__ = "scores"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    correction_id: Mapped[str] = mapped_column(ForeignKey("corrections.id"), index=True)
    label: Mapped[str] = mapped_column(Text, index=True)
    dice: Mapped[float] = mapped_column()
    model_version: Mapped[str] = mapped_column(Text)
    created: Mapped[str] = mapped_column(String(32))


class LabelRow(Base):
    """The append-only label list beyond the shipped targets: `id` goes on from theirs; `knowledge` is a knowledge-base entry
    {names: [..], location: "..", questions: [..], facts: [..]} (older rows lack some), which may change: the audit keeps what it
    was."""

    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    knowledge: Mapped[dict[str, Any]] = mapped_column(JSON)
    editor: Mapped[str] = mapped_column(Text)
    created: Mapped[str] = mapped_column(String(32))


class RoundRow(Base):
    """A fine-tuning round. `data`: ids and hashes of what it was trained and judged on; `progress`: {phase, done, total,
    seconds}; `decision`: the gate's numbers and sentence; `resumed`: how often it went on by itself; `heard`: when it was queued,
    or its process last stored something (older rows lack it)."""

    __tablename__ = "rounds"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    created: Mapped[str] = mapped_column(String(32))
    started: Mapped[str | None] = mapped_column(String(32))
    finished: Mapped[str | None] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16), index=True)
    trigger: Mapped[str] = mapped_column(String(16))
    editor: Mapped[str] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(Text)
    options: Mapped[dict[str, Any]] = mapped_column(JSON)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    progress: Mapped[dict[str, Any]] = mapped_column(JSON)
    champion: Mapped[str | None] = mapped_column(Text)
    challenger: Mapped[str | None] = mapped_column(Text)
    decision: Mapped[dict[str, Any]] = mapped_column(JSON)
    error: Mapped[str | None] = mapped_column(Text)
    resumed: Mapped[int] = mapped_column(server_default=text("0"))
    heard: Mapped[str | None] = mapped_column(String(32))


class VersionRow(Base):
    """An immutable model version: a checkpoint directory. `number` counts from 1; the checkpoint the server was started with is
    version 0 and has no row."""

    __tablename__ = "versions"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    parent: Mapped[str] = mapped_column(String(64))
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))
    created: Mapped[str] = mapped_column(String(32))
    directory: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    meta: Mapped[dict[str, Any]] = mapped_column(JSON)


class ChargeRow(Base):
    """Who is in charge: the last row names the version that answers. Adding a row is the one atomic switch."""

    __tablename__ = "charges"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    version: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(16))
    editor: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    created: Mapped[str] = mapped_column(String(32))


class WithdrawalRow(Base):
    """A correction that must not be used from now on: withdrawn by an editor's order, or its patient was removed."""

    __tablename__ = "withdrawals"
    correction_id: Mapped[str] = mapped_column(ForeignKey("corrections.id"), primary_key=True)
    why: Mapped[str] = mapped_column(Text)
    editor: Mapped[str] = mapped_column(Text)
    created: Mapped[str] = mapped_column(String(32))


class AuditRow(Base):
    """Append-only and hash-chained: `hash` covers the row and the hash of the row before."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    created: Mapped[str] = mapped_column(String(32))
    editor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)
    previous: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))
