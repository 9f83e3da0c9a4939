"""Series on this disk: fetched once, whole or not at all, bounded, and never taken from under a question."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from medsegr.dicom.archive import ArchiveError, SeriesInfo, UnknownSeries
from medsegr.dicom.cache import MAX_BYTES, SeriesCache, cache_bytes

SIZE = 1000


class Shelf:
    """An archive of made-up files; `away` and `breaks_after` make it fail."""

    name = "shelf"

    def __init__(self, local: bool = False, originals: Path | None = None) -> None:
        self.local, self.originals = local, originals
        self.held: dict[str, list[str]] = {}
        self.fetches: list[str] = []
        self.away = False
        self.breaks_after: int | None = None
        self.delay_s = 0.0

    def series(self) -> list[SeriesInfo]:
        return [SeriesInfo(uid, "1") for uid in self.held]

    def instances(self, series_uid: str) -> frozenset[str]:
        if self.away:
            raise ArchiveError("The archive is away.")
        if series_uid not in self.held:
            raise UnknownSeries("No such series.")
        return frozenset(self.held[series_uid])

    def fetch(self, series_uid: str, into: Path) -> list[Path]:
        self.fetches.append(series_uid)
        if self.originals:
            return [self.originals / name for name in self.held[series_uid]]
        for n, name in enumerate(self.held[series_uid]):
            if self.breaks_after is not None and n >= self.breaks_after:
                raise ArchiveError("The line went dead.")
            time.sleep(self.delay_s)
            (into / f"{name}.dcm").write_bytes(bytes(SIZE))
        return list(into.iterdir())

    def store(self, datasets: Sequence[Dataset]) -> None:
        raise NotImplementedError


@pytest.fixture
def shelf() -> Shelf:
    shelf = Shelf()
    shelf.held = {f"1.{n}": [f"1.{n}.{k}" for k in range(3)] for n in range(5)}
    return shelf


def test_those_who_ask_at_once_share_one_download(shelf: Shelf, tmp_path: Path) -> None:
    shelf.delay_s = 0.03
    cache = SeriesCache(shelf, tmp_path)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: len(cache.get("1.0").files), range(6)))
    assert found == [3] * 6 and shelf.fetches == ["1.0"]


def test_it_survives_a_restart(shelf: Shelf, tmp_path: Path) -> None:
    SeriesCache(shelf, tmp_path).get("1.0")
    assert len(SeriesCache(shelf, tmp_path).get("1.0").files) == 3
    assert shelf.fetches == ["1.0"]


def test_a_series_that_grew_is_fetched_anew(shelf: Shelf, tmp_path: Path) -> None:
    cache = SeriesCache(shelf, tmp_path)
    before = cache.get("1.0")
    release = cache.hold(before)
    shelf.held["1.0"].append("1.0.9")
    assert len(cache.get("1.0").files) == 4
    assert len(before.files) == 3  # a running question keeps what it began with
    release()


def test_a_broken_download_leaves_nothing(shelf: Shelf, tmp_path: Path) -> None:
    cache = SeriesCache(shelf, tmp_path)
    shelf.breaks_after = 2
    with pytest.raises(ArchiveError, match="dead"):
        cache.get("1.0")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    shelf.breaks_after = None
    assert len(cache.get("1.0").files) == 3


def test_the_oldest_goes_first_and_never_what_is_held(shelf: Shelf, tmp_path: Path) -> None:
    cache = SeriesCache(shelf, tmp_path, max_bytes=6 * SIZE, grace_s=0.0)
    held = cache.get("1.0")
    release = cache.hold(held)
    for n in (1, 2, 3):
        time.sleep(0.01)
        cache.get(f"1.{n}")
    kept = {path.name for path in tmp_path.iterdir()} - {"incoming"}
    assert kept == {"1.0", "1.3"} and len(held.files) == 3
    release()
    release()  # once more does no harm
    time.sleep(0.01)
    os.utime(held.home, (0, 0))
    cache.get("1.4")
    assert {path.name for path in tmp_path.iterdir()} - {"incoming"} == {"1.3", "1.4"}


def test_what_was_just_asked_for_stays_for_a_while(shelf: Shelf, tmp_path: Path) -> None:
    cache = SeriesCache(shelf, tmp_path, max_bytes=1, grace_s=60.0)
    assert len(cache.get("1.0").files) == 3 and len(cache.get("1.1").files) == 3


def test_while_the_archive_is_away_the_files_at_hand_are_used(shelf: Shelf, tmp_path: Path) -> None:
    cache = SeriesCache(shelf, tmp_path)
    cache.get("1.0")
    shelf.away = True
    assert len(cache.get("1.0").files) == 3
    with pytest.raises(ArchiveError, match="away"):
        cache.get("1.1")


@pytest.mark.parametrize("uid", ["", "..", "1/2", "x", "1" * 65, "incoming"])
def test_what_is_no_uid_never_becomes_a_path(shelf: Shelf, tmp_path: Path, uid: str) -> None:
    with pytest.raises(UnknownSeries):
        SeriesCache(shelf, tmp_path).get(uid)


def test_a_series_that_is_gone_is_unknown(shelf: Shelf, tmp_path: Path) -> None:
    cache = SeriesCache(shelf, tmp_path)
    cache.get("1.0")
    del shelf.held["1.0"]
    with pytest.raises(UnknownSeries):
        cache.get("1.0")


def test_leftovers_of_a_crash_are_cleared(shelf: Shelf, tmp_path: Path) -> None:
    left = tmp_path / "incoming" / "tmp1" / "entry" / "files"
    left.mkdir(parents=True)
    (left / "a.dcm").write_bytes(b"x")
    for path in (left, left.parent, left.parent.parent):
        os.utime(path, (0, 0))
    fresh = tmp_path / "incoming" / "tmp2"
    fresh.mkdir()
    SeriesCache(shelf, tmp_path)
    assert not left.exists() and fresh.exists()


def test_files_of_a_folder_are_linked_and_seen_to_change(tmp_path: Path) -> None:
    originals = tmp_path / "originals"
    originals.mkdir()
    for name in ("b.dcm", "a.dcm"):
        (originals / name).write_bytes(b"x")
    shelf = Shelf(local=True, originals=originals)
    shelf.held = {"1.0": ["b.dcm", "a.dcm"]}
    cache = SeriesCache(shelf, tmp_path / "cache")
    first = cache.get("1.0")
    assert [path.resolve().name for path in first.files] == ["b.dcm", "a.dcm"]
    assert all(path.is_symlink() for path in first.files)
    (originals / "a.dcm").write_bytes(b"longer")
    assert cache.get("1.0").home != first.home
    assert sorted(path.name for path in originals.iterdir()) == ["a.dcm", "b.dcm"]


def test_a_lease_ends_with_its_context(shelf: Shelf, tmp_path: Path) -> None:
    cache = SeriesCache(shelf, tmp_path, max_bytes=SIZE, grace_s=0.0)
    with cache.lease("1.0") as series:
        cache.get("1.1")
        assert len(series.files) == 3
    done = threading.Event()
    done.wait(0.01)
    os.utime(series.home, (0, 0))
    cache.get("1.2")
    assert not series.home.exists()


def test_the_bound_is_an_option() -> None:
    assert cache_bytes({}) == MAX_BYTES and cache_bytes({"cache_gib": "0.5"}) == 2**29
    for bad in ("0", "-1", "lots", "inf", "nan"):
        with pytest.raises(ArchiveError, match="cache_gib"):
            cache_bytes({"cache_gib": bad})


def test_what_is_put_beside_the_files_counts_too(shelf: Shelf, tmp_path: Path) -> None:
    cache = SeriesCache(shelf, tmp_path, max_bytes=12 * SIZE, grace_s=0.0)
    for n in range(4):
        (cache.get(f"1.{n}").home / "image.nii.gz").write_bytes(bytes(5 * SIZE))
        time.sleep(0.01)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 17 * SIZE


def test_a_download_with_a_gap_is_refused(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fewer(series_uid: str, into: Path) -> list[Path]:
        (into / "1.0.0.dcm").write_bytes(bytes(SIZE))
        return list(into.iterdir())

    monkeypatch.setattr(shelf, "fetch", fewer)
    with pytest.raises(ArchiveError, match="lists 3 images of this series, but gave 1"):
        SeriesCache(shelf, tmp_path).get("1.0")
    assert [path.name for path in tmp_path.iterdir()] == ["incoming"]


def test_versions_that_were_replaced_do_not_pile_up(shelf: Shelf, tmp_path: Path) -> None:
    cache = SeriesCache(shelf, tmp_path, grace_s=0.0)
    held = cache.get("1.0")
    release = cache.hold(held)
    for n in range(5):
        time.sleep(0.01)
        shelf.held["1.0"].append(f"1.0.9{n}")
        latest = cache.get("1.0")
    assert set((tmp_path / "1.0").iterdir()) == {held.home, latest.home}
    release()  # a use of the old version, which makes it no newer
    cache.get("1.1")
    assert list((tmp_path / "1.0").iterdir()) == [latest.home]


def test_while_the_archive_is_away_the_newest_version_is_used(shelf: Shelf, tmp_path: Path) -> None:
    cache = SeriesCache(shelf, tmp_path)
    release = cache.hold(cache.get("1.0"))
    time.sleep(0.01)
    shelf.held["1.0"].append("1.0.9")
    cache.get("1.0")
    time.sleep(0.01)
    release()
    shelf.away = True
    assert len(cache.get("1.0").files) == 4
