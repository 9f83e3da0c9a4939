"""The server is started once for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_server import Server, start, wait_until_ready


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The running server."""
    made = start(tmp_path_factory.mktemp("server"))
    try:
        wait_until_ready(made)
        yield made
    finally:
        made.stop()
