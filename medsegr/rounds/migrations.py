"""Bring an older database to today's layout, all at once or not at all.

The steps are written in SQL and never change afterwards; `tables` shows only the newest layout.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine, insert, inspect, select, update

from medsegr.rounds.errors import StoreError
from medsegr.rounds.tables import Base, SchemaVersion

SCHEMA = 2

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
}
"""Schema n -> the statements that make schema n + 1 of it."""


def migrate(engine: Engine) -> None:
    """Make the tables of a new database or bring an older one along; raises `StoreError` for a newer one, which stays
    as it is.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":  # one process at a time, and its DDL belongs to the transaction
            connection.exec_driver_sql("BEGIN IMMEDIATE")
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
                for statement in STEPS[version]:
                    connection.exec_driver_sql(statement)
            if found < SCHEMA:
                connection.execute(update(SchemaVersion).values(version=SCHEMA))
        connection.commit()


def _version(connection: Connection) -> int | None:
    if not inspect(connection).has_table(SchemaVersion.__tablename__):
        return None
    return connection.scalar(select(SchemaVersion.version))
