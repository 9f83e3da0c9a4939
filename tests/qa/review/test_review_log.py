"""The log of verdicts: durable, append-only, whole after a crash, one writer at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medsegr.errors import QAFileError
from medsegr.qa.review import log as log_module
from medsegr.qa.review.entries import Entry, ReviewError, TurnText, Verdict, clean_name
from medsegr.qa.review.log import ReviewLog, log_path_of

BEFORE = (TurnText("Where is the liver?", "The <p>liver</p> [SEG] lies under the diaphragm."),)


def entry(reviewer: str = "Ada", id_: str = "q1", verdict: Verdict = Verdict.ACCEPT, **more: object) -> Entry:
    return Entry("2026-01-02T03:04:05Z", reviewer, id_, verdict, BEFORE, **more)  # type: ignore[arg-type]


def test_entries_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = log_path_of(tmp_path / "qa.jsonl")
    assert path.name == "qa.jsonl.reviews.jsonl"
    edited = (TurnText("Où est le foie ?", "Le <p>foie</p> [SEG]."),)
    written = [entry(note="klar"), entry("Bob", verdict=Verdict.EDIT, after=edited, blind=False)]
    log = ReviewLog(path)
    assert log.entries() == []
    for one in written:
        log.append(one)
    assert log.entries() == written == ReviewLog(path).entries()
    assert json.loads(path.read_text().splitlines()[1])["after"] == [
        {"question": "Où est le foie ?", "answer": "Le <p>foie</p> [SEG]."}
    ]


def test_an_entry_is_synced_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    path = tmp_path / "log"

    def fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    ReviewLog(path).append(entry())
    assert synced[0] == path.stat().st_size > 0 and len(synced) == 2  # the file, and the folder of a new file
    ReviewLog(path).append(entry())
    assert synced[2:] == [path.stat().st_size]


@pytest.mark.parametrize("cut", [1, 2, 40, 10_000])
def test_an_unfinished_last_line_is_ignored_and_then_removed(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log"
    log = ReviewLog(path)
    log.append(entry(id_="q1"))
    whole = path.read_bytes()
    log.append(entry(id_="q2"))
    torn = path.read_bytes()[: max(len(whole) + 1, path.stat().st_size - cut)]
    path.write_bytes(torn)
    survives = cut == 1  # only the line end is missing
    assert [e.id for e in ReviewLog(path).entries()] == ["q1", *(["q2"] if survives else [])]
    log = ReviewLog(path)
    log.append(entry(id_="q3"))
    assert [e.id for e in log.entries()] == ["q1", *(["q2"] if survives else []), "q3"]
    assert len(path.read_bytes().splitlines()) == 2 + survives


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = ReviewLog(path)
    log.append(entry())
    good = path.read_text()
    for bad, reason in (
        ("{", "log:2: "),
        ('{"verdict": "maybe"}', "log:2: 'verdict' is 'maybe'; expected one of accept, edit, reject."),
        (good.replace('"accept"', '"edit"').strip(), "log:2: 'after' is None for the verdict edit"),
        (good.replace('"Ada"', "7").strip(), "log:2: 'reviewer' is 7"),
    ):
        path.write_text(good + bad + "\n" + good)
        with pytest.raises(QAFileError) as caught:
            ReviewLog(path).entries()
        assert str(caught.value).startswith(reason)


def test_a_reader_sees_what_others_add_and_a_replaced_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader, writer = ReviewLog(path), ReviewLog(path)
    for n in range(3):
        writer.append(entry(id_=f"q{n}"))
        assert [e.id for e in reader.entries()] == [f"q{k}" for k in range(n + 1)]
    path.unlink()
    writer.append(entry(id_="new"))
    assert [e.id for e in reader.entries()] == ["new"]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    script = (
        "import sys; from pathlib import Path; from medsegr.qa.review.entries import *; "
        "from medsegr.qa.review.log import ReviewLog; log = ReviewLog(Path(sys.argv[1])); "
        "[log.append(Entry('t', sys.argv[2], f'q{n}', Verdict.ACCEPT, (TurnText('q', 'a' * 5000),))) for n in range(25)]"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in ("Ada", "Bob")]
    shared = ReviewLog(path)
    threads = [
        threading.Thread(target=lambda who=who: [shared.append(entry(who, f"q{n}")) for n in range(25)])
        for who in ("Cid", "Dee")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in processes] == [0, 0]
    found = ReviewLog(path).entries()
    for who in ("Ada", "Bob", "Cid", "Dee"):
        assert [e.id for e in found if e.reviewer == who] == [f"q{n}" for n in range(25)]


def test_a_killed_writer_leaves_a_readable_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    script = (
        "import sys; from pathlib import Path; from medsegr.qa.review.entries import *; "
        "from medsegr.qa.review.log import ReviewLog; log = ReviewLog(Path(sys.argv[1]))\n"
        "for n in range(100000):\n"
        "    log.append(Entry('t', 'Ada', f'q{n}', Verdict.ACCEPT, (TurnText('q', 'a' * 50000),)))\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    acknowledged = 5 + len(process.stdout.read().split())
    process.wait()
    log = ReviewLog(path)
    log.append(entry(id_="after"))
    ids = [e.id for e in log.entries()]
    assert ids[:-1] == [f"q{n}" for n in range(len(ids) - 1)] and ids[-1] == "after"
    assert acknowledged <= len(ids) - 1 <= acknowledged + 1


def test_a_held_log_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "LOCK_TIMEOUT_S", 0.1)
    holder, writer = ReviewLog(tmp_path / "log"), ReviewLog(tmp_path / "log")
    with holder._lock, pytest.raises(ReviewError, match="nothing was written"):
        writer.append(entry())
    assert writer.entries() == []


def test_names_have_one_spelling() -> None:
    assert clean_name("  Dr.  Jose\u0301 ") == "Dr. Jos\u00e9"
    for bad in ("", "  ", "x" * 61, "a\u0007b"):
        with pytest.raises(ReviewError):
            clean_name(bad)
