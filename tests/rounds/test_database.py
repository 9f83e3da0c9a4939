"""The state folder: private, complete, and with one writer at a time where it matters."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import func, select
from state_rows import Place

from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.tables import PatientRow


def test_the_folders_are_made_whatever_the_database(place: Place) -> None:
    paths = place.open().paths
    assert (paths.models, paths.rounds, paths.cases) == tuple(
        place.folder / name for name in ("models", "rounds", "cases")
    )
    assert all(path.is_dir() for path in (paths.models, paths.rounds, paths.cases))
    assert place.folder.stat().st_mode & 0o077 == 0


def test_who_reads_before_writing_is_alone(place: Place) -> None:
    databases = [place.open(), place.open()]
    together = threading.Barrier(8)

    def count(n: int) -> None:
        together.wait()
        with databases[n % 2].writing() as session:
            seen = session.scalar(select(func.count()).select_from(PatientRow))
            session.add(PatientRow(key=f"k{seen}", kind="image", split="train", stratum="CT", assigned=now()))

    threads = [threading.Thread(target=count, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with databases[0].session() as session:
        assert sorted(session.scalars(select(PatientRow.key))) == [f"k{n}" for n in range(8)]


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.writing() as session:
            row = PatientRow(key="k", kind="image", split="train", stratum="CT", assigned=now())
            with database.writing(session) as same:
                assert same is session
                same.add(row)
            session.flush()
            raise RuntimeError("later")

    with pytest.raises(RuntimeError, match="later"):
        fail()
    with database.session() as session:
        assert session.get(PatientRow, "k") is None


@pytest.mark.parametrize(
    ("url", "words"),
    [("mysql://host/x", "begins with `mysql`"), ("nonsense", "cannot be read"), ("", "")],
)
def test_a_url_that_cannot_be_used_is_one_sentence(tmp_path: Path, url: str, words: str) -> None:
    if not words:
        Database(tmp_path, url).dispose()  # none at all: the folder's own file
        assert (tmp_path / "medsegr.sqlite").is_file()
        return
    with pytest.raises(StoreError, match=words) as caught:
        Database(tmp_path, url)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_postgres_that_is_away_is_one_sentence_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Database(tmp_path, "postgresql://ann:secret@127.0.0.1:9/none")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_sqlite_file_elsewhere_may_be_named(tmp_path: Path) -> None:
    made = Database(tmp_path / "state", f"sqlite:///{tmp_path / 'other.sqlite'}")
    assert made.is_sqlite and (tmp_path / "other.sqlite").is_file()
    assert not (tmp_path / "state" / "medsegr.sqlite").exists()
    made.dispose()
