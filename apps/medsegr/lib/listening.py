"""Where this server listens: MONAI Label keeps the port in its settings, but the address only in the command line."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from monailabel.main import Main

COMMAND = "start_server"
EVERYWHERE = ("", "0.0.0.0", "::")


@dataclass(frozen=True)
class Listening:
    """The address that a server listens on, and whether it speaks https."""

    host: str
    port: int
    secure: bool

    @property
    def url(self) -> str:
        """How a colleague's browser may reach it."""
        host = socket.gethostname() if self.host in EVERYWHERE else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.secure else 'http'}://{shown}:{self.port}"


def listening(arguments: Sequence[str]) -> Listening | None:
    """Read the command line (without the program) as MONAI Label does; None if another program started the server."""
    if COMMAND not in arguments:
        return None
    parser = argparse.ArgumentParser(add_help=False)
    main: Main = object.__new__(Main)  # its constructor sets logging up, a second time
    main.args_start_server(parser)
    given, _ = parser.parse_known_args(list(arguments[list(arguments).index(COMMAND) + 1 :]))
    return Listening(given.host, given.port, bool(given.ssl_keyfile or given.ssl_certfile))
