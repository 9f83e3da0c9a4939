"""The database's layout. A change here needs a new number and a step in `migrations`."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, String, Text
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
