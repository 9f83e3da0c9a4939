"""Start the real MONAI Label server with our app as a child process, wait until it can answer, and stop it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import httpx

ROOT = Path(__file__).resolve().parent.parent
WAITING = ("loading", "starting", "ready shortly")
"""Words of `readyz` while the model may still come up; any other sentence is a failure."""


class ServerError(RuntimeError):
    """The server did not start or did not answer; the message says what it said last."""


class Server:
    """`with Server(studies, out) as server:` serves `studies` on a free port of this machine until the block ends."""

    def __init__(self, studies: Path, out: Path, checkpoint: str, patience_s: float = 240.0) -> None:
        self.log = out / "server.log"
        self.patience_s = patience_s
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable, "-m", "monailabel.main", "start_server", "--app", str(ROOT / "apps" / "medsegr"),
            "--studies", str(studies), "--host", "127.0.0.1", "--port", str(port),
            "--conf", "state", str(out / "state"), "--conf", "checkpoint", checkpoint,
        ]  # fmt: skip

    def __enter__(self) -> Server:
        # An interpreter that was not "activated" is not first on PATH, where MONAI Label looks for its children's.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": path},
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def tail(self, lines: int = 15) -> str:
        """The last lines that the server wrote."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _reason(self) -> str:
        """The last error of ours in the log, if there is one: it is a sentence already."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        ours = [line.partition(": ")[2] for line in lines if line.startswith("medsegr.errors.")]
        return ours[-1] if ours else "its log says why."

    def _wait(self) -> None:
        end = time.monotonic() + self.patience_s
        said = "nothing yet"
        while time.monotonic() < end:
            code = self._process.poll()
            if code is not None:
                raise ServerError(f"The server stopped with exit code {code}: {self._reason()}")
            try:
                reply = httpx.get(f"{self.url}/medsegr/readyz", timeout=10)
            except httpx.TransportError:
                time.sleep(0.3)
                continue
            if reply.status_code == httpx.codes.OK:
                return
            said = _detail(reply)
            if not any(word in said for word in WAITING):
                raise ServerError(f"The server is up, but the model is not: {said}")
            time.sleep(0.3)
        raise ServerError(f"The server was not ready within {self.patience_s:.0f} s; it said: {said}")

    def _stop(self) -> None:
        """Ask the whole process group to end, then insist: the model runs in a child of the server's."""
        for sign, grace_s in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(self._process.pid, sign)
            except ProcessLookupError:
                break
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait(5.0)


def _detail(reply: httpx.Response) -> str:
    try:
        data = reply.json()
    except ValueError:
        return f"status {reply.status_code}"
    return str(data.get("detail", data)) if isinstance(data, dict) else f"status {reply.status_code}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
