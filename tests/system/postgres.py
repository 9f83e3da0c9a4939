"""A real Postgres (Debian's package), on a free port with a cluster of its own; it runs as another user where we are root,
which Postgres refuses to be.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.system.ports import free_port, wait_for

START_S = 60
OWNERS = ("postgres", "nobody")
"""Users to start it as, for root."""


def programs() -> Path | None:
    """The folder of the newest Postgres' programs, None where there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


@dataclass
class Postgres:
    """A running server; everybody on this machine may log in as its owner, without a password."""

    port: int
    owner: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of its first database."""
        return f"postgresql://{self.owner}@127.0.0.1:{self.port}/postgres"

    def sql(self, text: str, database: str = "postgres") -> str:
        """What `psql` makes of some SQL, stopping at the first error; values alone, one row a line."""
        return self.run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, text=text)

    def run(self, program: str, *arguments: str, text: str = "") -> str:
        """One of Postgres' own programs, connected to this server."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", self.owner]
        command = [str(_folder() / program), *where, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """End it at once and delete its files."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


def start_postgres() -> Postgres:
    """Make a cluster in a temporary folder, start a server for it and wait until it answers."""
    me = pwd.getpwuid(os.getuid())
    user = next((_user(name) for name in OWNERS if _user(name)), None) if me.pw_uid == 0 else me
    assert user is not None, "root needs another user to start Postgres as"
    folder = Path(tempfile.mkdtemp(prefix="medsegr-postgres-"))
    if user is not me:
        os.chown(folder, user.pw_uid, user.pw_gid)
    become = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user is not me else {}
    data, printed = folder / "data", folder / "printed.txt"
    made = subprocess.run(
        [_folder() / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        **become,  # type: ignore[call-overload]
    )
    assert made.returncode == 0, made.stderr
    port = free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": folder,
        "fsync": "off",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with printed.open("wb") as out:
        process = subprocess.Popen(
            [_folder() / "postgres", "-D", data, *options],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            **become,  # type: ignore[call-overload]
        )
    server = Postgres(port, "tester", folder, process)

    def answers() -> bool:
        assert process.poll() is None, printed.read_text()
        ready = [_folder() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(ready, check=False).returncode == 0

    wait_for(answers, START_S, printed.read_text)
    return server


def _folder() -> Path:
    found = programs()
    assert found is not None
    return found


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
