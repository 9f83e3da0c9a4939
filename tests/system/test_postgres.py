"""The state on a real Postgres: the stores' own tests pass there, and an older layout becomes that of a new database."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.schema import CreateIndex, CreateTable

from medsegr.rounds import migrations
from medsegr.rounds.tables import Base, CorrectionRow, SchemaVersion, TurnRow
from tests.system.postgres import Postgres, programs, start_postgres

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        programs() is None, reason="Postgres is not installed; tests/system/install.sh does it"
    ),
]
TESTS = Path(__file__).resolve().parents[1] / "rounds"
NEWER = ("patients", "cases", "scores", "labels", "rounds", "versions", "charges", "withdrawals", "audit")
"""Tables that schema 3 added."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = start_postgres()
    yield server
    server.stop()


@pytest.mark.skipif(find_spec("psycopg") is None, reason="psycopg is missing: pip install '.[postgres]'")
def test_the_stores_pass_their_tests(postgres: Postgres) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "postgres", str(TESTS)]
    environment = {**os.environ, "MEDSEGR_TEST_POSTGRES": postgres.url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped|failed)", done.stdout)}
    assert counts.get("passed", 0) >= 40 and "skipped" not in counts, done.stdout[-2000:]


def test_a_migrated_database_has_the_layout_of_a_new_one(postgres: Postgres) -> None:
    old = [table for table in Base.metadata.sorted_tables if table.name not in NEWER]
    assert {table.name for table in old} == {
        model.__tablename__ for model in (SchemaVersion, TurnRow, CorrectionRow)
    }
    first = [table for table in old if table.name != CorrectionRow.__tablename__]
    steps = [step for version in migrations.STEPS for step in migrations.statements(version, "postgresql")]
    postgres.sql("CREATE DATABASE migrated")
    postgres.sql(";\n".join([*_ddl(first), *steps]), "migrated")
    postgres.sql("CREATE DATABASE fresh")
    postgres.sql(";\n".join(_ddl(Base.metadata.sorted_tables)), "fresh")
    layouts = [_layout(postgres, name) for name in ("migrated", "fresh")]
    assert layouts[0] == layouts[1]
    assert {"audit", "cases", "turns"} <= {line.split("|")[1] for line in layouts[0] if "|" in line}


def _ddl(tables: list[object]) -> list[str]:
    """The statements by which SQLAlchemy makes these tables on Postgres."""
    dialect = PGDialect()
    made = []
    for table in tables:
        made.append(str(CreateTable(table).compile(dialect=dialect)))  # type: ignore[arg-type]
        indexes = sorted(table.indexes, key=lambda index: str(index.name))  # type: ignore[attr-defined]
        made += [str(CreateIndex(index).compile(dialect=dialect)) for index in indexes]
    return made


def _layout(postgres: Postgres, database: str) -> list[str]:
    """Columns, keys, constraints and indexes, in words that do not depend on the order in which they were made."""
    queries = (
        "SELECT 'column', table_name, column_name, data_type, character_maximum_length, is_nullable, column_default "
        "FROM information_schema.columns WHERE table_schema = 'public'",
        "SELECT 'constraint', conrelid::regclass, contype, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace",
        "SELECT 'index', tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    )
    return sorted(line for query in queries for line in postgres.sql(query, database).splitlines())
