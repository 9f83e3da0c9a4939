"""A web site with the panel's test page that passes everything else on to a medsegr server, and can play its failures."""

from __future__ import annotations

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PLUGIN = ROOT / "plugins" / "ohif"
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
PASSED_ON = ("content-type", "content-encoding", "cache-control", "content-disposition", "retry-after")


class PanelSite(ThreadingHTTPServer):
    """Serves at `url` until `stop`. `refuse` = (status, sentence) answers every question to the server but readyz; `played` =
    {"GET /path": (status, reply)} answers for the server what takes it hours to do, such as a round; `heard` are the bodies that
    were sent there."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.refuse: tuple[int, str] | None = None
        self.played: dict[str, tuple[int, object]] = {}
        self.heard: list[tuple[str, object]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that has gone is no error of the test."""


class _Handler(BaseHTTPRequestHandler):
    server: PanelSite

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/medsegr/ohif/"):
            self._file(PLUGIN, path.removeprefix("/medsegr/ohif/"))
        elif path.startswith("/panel/"):
            self._file(HERE, path.removeprefix("/panel/"))
        else:
            self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def do_DELETE(self) -> None:
        self._pass_on()

    def _file(self, root: Path, name: str) -> None:
        file = (root / name).resolve()
        if not file.is_relative_to(root) or file.suffix not in TYPES or not file.is_file():
            self.send_error(404)
            return
        self._reply(200, {"Content-Type": TYPES[file.suffix], "Cache-Control": "no-store"}, file.read_bytes())

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.server.refuse and not self.path.startswith("/medsegr/readyz"):
            status, sentence = self.server.refuse
            self._reply(
                status, {"Content-Type": "application/json"}, json.dumps({"detail": sentence}).encode()
            )
            return
        played = self.server.played.get(f"{self.command} {urlsplit(self.path).path}")
        if played:
            self.server.heard.append((urlsplit(self.path).path, json.loads(body) if body else None))
            self._reply(played[0], {"Content-Type": "application/json"}, json.dumps(played[1]).encode())
            return
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=120)
        try:
            kept = {
                k: v for k, v in self.headers.items() if k.lower() in ("content-type", "accept", "cookie")
            }
            upstream.request(self.command, self.path, body or None, kept)
            reply = upstream.getresponse()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() in PASSED_ON:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            while piece := reply.read1(65536):
                self.wfile.write(piece)
                self.wfile.flush()
        except (OSError, http.client.HTTPException):
            self.connection.close()  # no answer at all, or half of one: what a dead server looks like
        finally:
            upstream.close()

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""
