"""The hospital, the knowledge base and the endpoint of the annotation tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from medsegr.qa.annotate import run
from medsegr.qa.facts import KnowledgeBase, load_knowledge
from tests.annotation_endpoint import Endpoint, torso, write_hospital


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """A folder with one set of three CT slices of two patients: 15 targets to draw."""
    return write_hospital(tmp_path / "hospital", torso())


@pytest.fixture(scope="session")
def knowledge() -> KnowledgeBase:
    return load_knowledge()


@pytest.fixture(autouse=True)
def read_once(knowledge: KnowledgeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs share the shipped knowledge base: reading its YAML takes longer than most of the tests."""
    monkeypatch.setattr(run, "load_knowledge", lambda _: knowledge)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server that behaves well until its `behaviour` is changed."""
    server = Endpoint()
    yield server
    server.stop()
