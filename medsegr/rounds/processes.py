"""End the process of a round, with all that it has started."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import psutil

GRACE_S = 3.0
SAME_S = 5.0


def end_tree(pid: int) -> None:
    """End a process and all that it has started, however deep: asked first, killed after a while."""
    try:
        top = psutil.Process(pid)
        family = [*top.children(recursive=True), top]
    except psutil.Error:
        return
    for process in family:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=GRACE_S)
    for process in alive:
        with suppress(psutil.Error):
            for late in process.children(recursive=True):
                late.kill()
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE_S)


def owner_pid(owner: str) -> int | None:
    """The process "pid start host" of this machine, unless it is this one, which only queued the round."""
    pid, start, host = owner.split(" ", 2)
    try:
        same = abs(psutil.Process(int(pid)).create_time() - float(start)) < SAME_S
    except (psutil.Error, ValueError):
        return None
    return int(pid) if same and host == socket.gethostname() and int(pid) != os.getpid() else None
