"""MONAI Label's strategies offer what `medsegr.choosing` chooses, under the names that its clients see."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from live_server import ROOT

from medsegr.choosing import Chooser, Look
from medsegr.rounds.store import TurnStore

IMAGES = ["a", "b"]


@pytest.fixture
def chooser(tmp_path: Path) -> Iterator[Chooser]:
    store = TurnStore(tmp_path)
    yield Chooser(store.database, tmp_path, lambda: "v1")
    store.dispose()


@pytest.fixture
def strategies(chooser: Chooser, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(ROOT / "apps" / "medsegr"))
    made = importlib.import_module("lib.activelearning.choosing").strategies(chooser)
    return dict(made)


def store(asked: list[Any]) -> Any:
    def unlabelled(tag: Any, labels: Any) -> list[str]:
        asked.append((tag, labels))
        return IMAGES

    return SimpleNamespace(get_unlabeled_images=unlabelled)


def test_clients_see_every_strategy_with_a_sentence(strategies: dict[str, Any]) -> None:
    assert set(strategies) == {"random", "foreground", "entropy", "disagreement", "mixture"}
    assert all(len(strategy.info()["description"]) > 20 for strategy in strategies.values())


def test_each_image_once_with_its_reason_and_then_nothing(
    strategies: dict[str, Any], chooser: Chooser
) -> None:
    chooser.looks.add(Look("b", "v1", entropy=2.0))
    asked: list[Any] = []
    request = {"strategy": "entropy", "label_tag": "final", "labels": ["liver"]}
    first = strategies["entropy"](request, store(asked))
    assert first["id"] == "b" and "least sure" in first["why"] and asked == [("final", ["liver"])]
    assert strategies["random"]({}, store(asked))["id"] == "a"
    assert strategies["mixture"]({}, store(asked)) is None
