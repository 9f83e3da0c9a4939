"""Looks survive a restart and a torn line and belong to one model version; a skip lasts, an opened image is forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medsegr.choosing.look import Look
from medsegr.choosing.look_store import LookStore
from medsegr.choosing.skips import Opened, Skips
from medsegr.rounds.errors import StoreError


def test_looks_come_back_after_a_restart_whole_or_not_at_all(tmp_path: Path) -> None:
    store = LookStore(tmp_path / "looks")
    first = Look("a", "v1", (("liver", 0.9),), 1.5, ("spleen", 0.4), 0.2, "why", 0.1, "how", (0.6, 0.8))
    store.add(first)
    store.add(Look("b", "v1"))
    store.add(Look("b", "v1", entropy=2.0))
    (file,) = (tmp_path / "looks").iterdir()
    text = file.read_text()
    file.write_text(text + "\n" + json.dumps(Look("c", "v1").to_json())[:30])
    again = LookStore(tmp_path / "looks")
    assert again.looks("v1") == {"a": first, "b": Look("b", "v1", entropy=2.0)}
    again.add(Look("d", "v1"))
    assert set(LookStore(tmp_path / "looks").looks("v1")) == {"a", "b", "d"}


def test_another_versions_looks_say_nothing_about_this_one(tmp_path: Path) -> None:
    store = LookStore(tmp_path)
    store.add(Look("a", "v1"))
    assert store.looks("v2") == {} and store.looks(None) == {}
    store.add(Look("b", "v2"))
    assert set(store.looks("v1")) == {"a"}, "a rollback finds its own again"
    for version in ("v3", "v4", "v5"):
        store.add(Look("x", version))
    assert len(list(tmp_path.iterdir())) <= 4


def test_a_line_of_another_form_is_left_out(tmp_path: Path) -> None:
    store = LookStore(tmp_path)
    store.add(Look("a", "v"))
    (file,) = tmp_path.iterdir()
    bad = {**Look("b", "v").to_json(), "entropy": "much"}
    file.write_text(file.read_text() + "\n" + json.dumps(bad) + '\n[1]\n{"image": 1}')
    assert set(LookStore(tmp_path).looks("v")) == {"a"}


def test_a_skip_holds_until_it_is_taken_back(tmp_path: Path) -> None:
    skips = Skips(tmp_path / "state" / "skipped.jsonl")
    skips.set("a", "anna")
    skips.set("b", "ben")
    skips.set("a", "ben", skipped=False)
    assert skips.images() == {"b"}
    with skips.file.open("a") as file:
        file.write('\n{"image": "c", "ski')
    assert Skips(skips.file).images() == {"b"}
    rows = [json.loads(line) for line in skips.file.read_text().split("\n")[1:4]]
    assert [(row["image"], row["editor"], row["skipped"]) for row in rows][-1] == ("a", "ben", False)


def test_a_skip_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    skips = Skips(tmp_path / "file" / "skipped.jsonl")
    with pytest.raises(StoreError, match="could not be written"):
        skips.set("a", "anna")
    assert skips.images() == frozenset()


def test_opened_images_are_forgotten_after_some_minutes() -> None:
    time = [0.0]
    opened = Opened(30, clock=lambda: time[0])
    opened.note("a")
    time[0] = 29 * 60
    opened.note("b")
    assert opened.images() == {"a", "b"}
    time[0] = 31 * 60
    assert opened.images() == {"b"}
    opened.forget("b")
    assert opened.images() == frozenset()
