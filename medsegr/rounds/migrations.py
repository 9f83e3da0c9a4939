"""Bring an older database to today's layout, all at once or not at all.

The steps are written in SQL that SQLite and Postgres understand and never change afterwards; `tables` shows only the
newest layout.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine, func, insert, inspect, select, update

from medsegr.rounds.errors import StoreError
from medsegr.rounds.tables import Base, SchemaVersion

SCHEMA = 4

STEPS: dict[int, tuple[str, ...]] = {
    1: (
        """
        CREATE TABLE corrections (
            id VARCHAR(32) NOT NULL PRIMARY KEY,
            turn_id VARCHAR(32) REFERENCES turns (id),
            image_id TEXT NOT NULL,
            editor TEXT NOT NULL,
            client_id TEXT,
            created VARCHAR(32) NOT NULL,
            verdict VARCHAR(16) NOT NULL,
            reason TEXT,
            answer TEXT,
            findings JSON NOT NULL,
            origin VARCHAR(16) NOT NULL,
            model_version TEXT
        )
        """,
        "CREATE INDEX ix_corrections_turn_id ON corrections (turn_id)",
        "CREATE INDEX ix_corrections_image_id ON corrections (image_id)",
        "CREATE INDEX ix_corrections_editor ON corrections (editor)",
        "CREATE INDEX ix_corrections_created ON corrections (created)",
    ),
    2: (
        """
        CREATE TABLE patients (
            key VARCHAR(64) NOT NULL PRIMARY KEY,
            kind VARCHAR(16) NOT NULL,
            split VARCHAR(8) NOT NULL,
            stratum TEXT NOT NULL,
            assigned VARCHAR(32) NOT NULL
        )
        """,
        "CREATE INDEX ix_patients_split ON patients (split)",
        "CREATE INDEX ix_patients_stratum ON patients (stratum)",
        """
        CREATE TABLE cases (
            correction_id VARCHAR(32) NOT NULL PRIMARY KEY REFERENCES corrections (id),
            patient_key VARCHAR(64) NOT NULL REFERENCES patients (key),
            modality VARCHAR(16),
            slices INTEGER NOT NULL,
            sha256 VARCHAR(64) NOT NULL
        )
        """,
        "CREATE INDEX ix_cases_patient_key ON cases (patient_key)",
        """
        CREATE TABLE scores (
            id {serial} NOT NULL PRIMARY KEY,
            correction_id VARCHAR(32) NOT NULL REFERENCES corrections (id),
            label TEXT NOT NULL,
            dice {double} NOT NULL,
            model_version TEXT NOT NULL,
            created VARCHAR(32) NOT NULL
        )
        """,
        "CREATE INDEX ix_scores_correction_id ON scores (correction_id)",
        "CREATE INDEX ix_scores_label ON scores (label)",
        """
        CREATE TABLE labels (
            id {serial} NOT NULL PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            knowledge JSON NOT NULL,
            editor TEXT NOT NULL,
            created VARCHAR(32) NOT NULL
        )
        """,
        """
        CREATE TABLE rounds (
            id {serial} NOT NULL PRIMARY KEY,
            created VARCHAR(32) NOT NULL,
            started VARCHAR(32),
            finished VARCHAR(32),
            status VARCHAR(16) NOT NULL,
            trigger VARCHAR(16) NOT NULL,
            editor TEXT NOT NULL,
            owner TEXT NOT NULL,
            options JSON NOT NULL,
            data JSON NOT NULL,
            progress JSON NOT NULL,
            champion TEXT,
            challenger TEXT,
            decision JSON NOT NULL,
            error TEXT
        )
        """,
        "CREATE INDEX ix_rounds_status ON rounds (status)",
        """
        CREATE TABLE versions (
            number {serial} NOT NULL PRIMARY KEY,
            name VARCHAR(64) NOT NULL UNIQUE,
            parent VARCHAR(64) NOT NULL,
            round_id INTEGER REFERENCES rounds (id),
            created VARCHAR(32) NOT NULL,
            directory TEXT NOT NULL,
            sha256 VARCHAR(64) NOT NULL,
            meta JSON NOT NULL
        )
        """,
        """
        CREATE TABLE charges (
            id {serial} NOT NULL PRIMARY KEY,
            version VARCHAR(64) NOT NULL,
            action VARCHAR(16) NOT NULL,
            editor TEXT NOT NULL,
            reason TEXT NOT NULL,
            created VARCHAR(32) NOT NULL
        )
        """,
        """
        CREATE TABLE withdrawals (
            correction_id VARCHAR(32) NOT NULL PRIMARY KEY REFERENCES corrections (id),
            why TEXT NOT NULL,
            editor TEXT NOT NULL,
            created VARCHAR(32) NOT NULL
        )
        """,
        """
        CREATE TABLE audit (
            id {serial} NOT NULL PRIMARY KEY,
            created VARCHAR(32) NOT NULL,
            editor TEXT NOT NULL,
            action VARCHAR(32) NOT NULL,
            subject TEXT NOT NULL,
            detail JSON NOT NULL,
            previous VARCHAR(64) NOT NULL,
            hash VARCHAR(64) NOT NULL
        )
        """,
    ),
    3: (
        "ALTER TABLE rounds ADD COLUMN resumed INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE rounds ADD COLUMN heard VARCHAR(32)",
    ),
}
"""Schema n -> the statements that make schema n + 1 of it; `{serial}` is an integer that counts on by itself,
`{double}` a number of 64 bits."""

MIGRATING = 0x6D6967726174
"""Postgres' advisory lock of those who change the layout: "migrat" in ASCII."""


def migrate(engine: Engine) -> None:
    """Make the tables of a new database or bring an older one along; raises `StoreError` for a newer one, which stays
    as it is.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":  # one process at a time, and its DDL belongs to the transaction
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATING)))
        found = _version(connection)
        if found is None:
            Base.metadata.create_all(connection)
            connection.execute(insert(SchemaVersion).values(version=SCHEMA))
        elif found > SCHEMA:
            raise StoreError(
                f"The state folder has schema {found}; this medsegr reads up to {SCHEMA}: update it."
            )
        else:
            for version in range(found, SCHEMA):
                for statement in statements(version, engine.dialect.name):
                    connection.exec_driver_sql(statement)
            if found < SCHEMA:
                connection.execute(update(SchemaVersion).values(version=SCHEMA))
        connection.commit()


def statements(version: int, dialect: str) -> list[str]:
    """The step from `version` in the words of SQLAlchemy's dialect of this name."""
    serial, double = ("INTEGER", "DOUBLE") if dialect == "sqlite" else ("SERIAL", "DOUBLE PRECISION")
    return [step.replace("{serial}", serial).replace("{double}", double) for step in STEPS[version]]


def _version(connection: Connection) -> int | None:
    if not inspect(connection).has_table(SchemaVersion.__tablename__):
        return None
    return connection.scalar(select(SchemaVersion.version))
