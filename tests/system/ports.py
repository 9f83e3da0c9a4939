"""Free ports, and waiting for whatever will listen on them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(check: Callable[[], object], seconds: float, why: Callable[[], str]) -> None:
    """Poll `check` until it holds; after `seconds` fails with what `why` says."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, why()
        time.sleep(0.1)
