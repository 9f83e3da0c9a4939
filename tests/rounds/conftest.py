"""Where the stores' tests keep their state: a SQLite file, and a Postgres database where MEDSEGR_TEST_POSTGRES names a
server (`tests/system/test_postgres.py` starts one and runs these tests against it).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from state_rows import Place

from medsegr.rounds.database import Database

SERVER = "MEDSEGR_TEST_POSTGRES"


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A new, empty state on each kind of database."""
    if request.param == "sqlite":
        made = Place(tmp_path / "state", None)
        yield made
        _close(made)
        return
    if not os.environ.get(SERVER):
        pytest.skip(f"no Postgres server; {SERVER} names one")
    server = make_url(os.environ[SERVER]).set(drivername="postgresql+psycopg")
    name = f"t{uuid.uuid4().hex}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    url = server.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    made = Place(tmp_path / "state", url)
    yield made
    _close(made)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")
    admin.dispose()


@pytest.fixture
def database(place: Place) -> Database:
    """The state, opened."""
    return place.open()


def _close(place: Place) -> None:
    for database in place.opened:
        database.dispose()
