"""What a round's processes owe the server and each other: they give way to it, and end with all that they have started."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

GRACE_S = 3.0
SAME_S = 5.0
NICEST = 19
ORPHAN_S = 1.0
"""How often a process of a group looks whether those that started it still live."""


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


def own_name() -> str:
    """This process, told apart from others that had or will have its number: `pid start host`."""
    return f"{os.getpid()} {psutil.Process().create_time():.2f} {socket.gethostname()}"


def elsewhere(name: str) -> bool:
    """Whether the process of this name was started on another machine."""
    return name.split(" ", 2)[2] != socket.gethostname()


def alive(name: str) -> bool:
    """Whether the process of this name runs. Of another machine's nothing is known: it counts as alive."""
    pid, start, host = name.split(" ", 2)
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(start)) < SAME_S
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def owner_pid(owner: str) -> int | None:
    """The process "pid start host" of this machine, unless it is this one, which only queued the round."""
    pid, start, host = owner.split(" ", 2)
    try:
        same = abs(psutil.Process(int(pid)).create_time() - float(start)) < SAME_S
    except (psutil.Error, ValueError):
        return None
    return int(pid) if same and host == socket.gethostname() and int(pid) != os.getpid() else None


def give_way(pid: int, steps: int) -> None:
    """Have a process of a session of its own, just started, run after this one: `steps` nicer, as far as there are steps. Where
    Linux shares out processor time by session first, its session does as well, or niceness would mean nothing to this one. Linux
    also takes it for a batch job then, whose threads take no core from a running thread when they wake.
    """
    niceness = min(os.nice(0) + steps, NICEST)
    with suppress(psutil.Error):
        psutil.Process(pid).nice(niceness)
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness), "ascii")


def end_when_orphaned() -> None:
    """Have this process, one of a group under `torchrun`, end once `torchrun` or the round's process that started it is gone: by
    then the round may have been taken up anew. Returns at once; a thread looks.
    """
    group = psutil.Process().parent()
    starter = group.ppid() if group else 0

    def look() -> None:
        with suppress(psutil.Error):
            while group is not None and os.getppid() == group.pid and group.ppid() == starter:
                time.sleep(ORPHAN_S)
        os._exit(1)

    threading.Thread(target=look, name="medsegr-orphan", daemon=True).start()
