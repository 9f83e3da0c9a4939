"""The learning loop's routes with nothing that answers questions, as a chosen user sees them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from version_folders import write_version

from medsegr.rounds.labels import LabelList
from medsegr.rounds.registry import Registry
from medsegr.rounds.store import TurnStore
from medsegr.web.login.identity import SCOPE_KEY, User
from medsegr.web.rounds import rounds_router


class LearningServer:
    """Registry, label list and routes on a state folder; requests come from `user` (None: a server without login)."""

    def __init__(self, folder: Path) -> None:
        self.store = TurnStore(folder / "state")
        self.database = self.store.database
        registry = Registry(self.database, write_version(folder / "base", "base-1"))
        labels = LabelList(self.database, registry.base.targets)
        charge = SimpleNamespace(version=registry.current())
        self.loop: Any = SimpleNamespace(registry=registry, labels=labels, charge=charge)
        self.user: User | None = None
        app = FastAPI()
        app.include_router(rounds_router(self.loop))

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            await app(scope | ({SCOPE_KEY: self.user} if self.user else {}), receive, send)

        self.client = TestClient(guarded)

    def close(self) -> None:
        """Close the database."""
        self.store.dispose()
