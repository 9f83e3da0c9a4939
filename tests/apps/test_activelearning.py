"""The next image to label."""

from __future__ import annotations

import importlib
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from live_server import ROOT


@pytest.fixture
def strategy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "apps" / "medsegr"))
    return importlib.import_module("lib.activelearning.random").Random()


def store(**served: int) -> Any:
    info = {name: {"strategy": {"random": {"ts": ts}}} if ts else {} for name, ts in served.items()}
    return SimpleNamespace(
        get_unlabeled_images=lambda tag, labels: list(served), get_image_info=lambda image: info[image]
    )


def test_an_image_that_was_served_this_second_can_be_served_again(strategy: Any) -> None:
    now = int(time.time())
    assert strategy({"strategy": "random"}, store(a=now + 1)) == {"id": "a", "weight": 1}


def test_those_not_served_lately_come_first(strategy: Any) -> None:
    now = int(time.time())
    chosen = Counter(strategy({}, store(new=0, old=now - 1, late=now))["id"] for _ in range(200))
    assert chosen["new"] >= 198


def test_everything_labelled_means_nothing_to_do(strategy: Any) -> None:
    assert strategy({}, store()) is None
