"""What a round costs those who ask meanwhile, and how soon another version answers.

    python benchmarks/round_cost.py --stream DATA/corrections/drishti_fundus [--targets "optic disc,optic cup"]

Starts a real server, sends corrections of the stream by REST and asks with nothing else running: a first question about a picture
that it has never seen, a follow-up about the same, a pause, again and again. Then it starts a round by REST and goes on asking in
the same way until the round has ended. Last it puts another version in charge and goes back, several times, while a client asks
without a pause. Bars: the round ends within 5 minutes, p95 during it is at most twice that of before, a rollback answers within
5 s, no question fails, and each is answered by the version that was in charge when it began. Exits 1 when one is missed.

Leave OMP_NUM_THREADS unset for figures that mean something: the server and the round then use every core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from info_latency import ROOT, wait_until_ready
from learning.asking import KINDS, Asked, Asker, Client, Pictures
from learning.clinicians import Clinicians, Flaws
from learning.remote import ServerSite
from learning.streams import read_stream
from learning.switching import in_charge, switch_versions, switches_table, waits

from medsegr.errors import MedSegRError
from medsegr.files import write_whole
from medsegr.rounds.database import Database
from medsegr.rounds.registry import Registry
from medsegr.web.checkpoints import checkpoint_folder

ROUND_S, RATIO, ROLLBACK_S = 300.0, 2.0, 5.0
"""The bars."""
OPEN = ("queued", "running")
POLL_S = 0.5


@contextmanager
def running_server(folder: Path, checkpoint: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server on the empty folder `folder`/studies with the state `folder`/state; yields its URL and process."""
    (folder / "studies").mkdir()
    ignored = shutil.ignore_patterns("model", "logs", "bin", "state", "__pycache__")
    shutil.copytree(ROOT / "apps" / "medsegr", folder / "app", ignore=ignored)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "monailabel.main", "start_server", "--app", str(folder / "app")),
        *("--studies", str(folder / "studies"), "--host", "127.0.0.1", "--port", str(port)),
        *("--conf", "checkpoint", checkpoint, "--conf", "device", "cpu", "--conf", "state", str(folder / "state")),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
    }
    log = folder / "server.log"
    with log.open("wb") as printed:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=printed, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, log)
        yield url, process
    finally:
        process.terminate()  # takes a round along that still runs
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def second_version(state: Path, checkpoint: Path, work: Path) -> str:
    """Register a copy of the checkpoint as a version of the state folder that no server uses yet; its name."""
    shutil.copytree(checkpoint, work)
    database = Database(state)
    try:
        registry = Registry(database, checkpoint)
        return registry.register(work, registry.base.name, None, editor="benchmark").name
    finally:
        database.dispose()


def run_round(
    client: Client, asker: Asker, minutes: float
) -> tuple[dict[str, Any], float, list[tuple[str, float]]]:
    """Start a round and follow it to its end: how it ended, its seconds, and its phases with the moment each began. `asker`
    asks meanwhile."""
    began = time.monotonic()
    started = client.json("POST", "/medsegr/rounds", json={"max_minutes": minutes} if minutes else {})
    phases = [("starting", began)]
    while True:
        found: dict[str, Any] = client.json("GET", f"/medsegr/rounds/{started['id']}")
        phase = found["progress"].get("phase", phases[0][0])
        if found["status"] not in OPEN:
            phases.append(("", time.monotonic()))
            asker.end()
            return found, phases[-1][1] - began, phases
        if phase != phases[-1][0]:
            phases.append((phase, time.monotonic()))
        time.sleep(POLL_S)


def percentiles(asked: list[Asked], kind: str) -> tuple[int, float, float]:
    """Number, p50 and p95 in s of the questions of a kind that were answered; NaN without any."""
    seconds = [a.seconds for a in asked if a.kind == kind and not a.error]
    p50, p95 = np.percentile(seconds, [50, 95]) if seconds else (np.nan, np.nan)
    return len(seconds), float(p50), float(p95)


def serving_table(before: list[Asked], during: list[Asked]) -> str:
    """Both kinds of question, before the round and during it."""
    lines = [
        "| question | n before | p50 before | p95 before | n during | p50 during | p95 during | p95 ratio (bar <= 2) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        (n, p50, p95), (m, q50, q95) = percentiles(before, kind), percentiles(during, kind)
        lines.append(
            f"| {kind} | {n} | {p50:.3f} s | {p95:.3f} s | {m} | {q50:.3f} s | {q95:.3f} s | {q95 / p95:.2f} |"
        )
    return "\n".join(lines)


def phases_table(phases: list[tuple[str, float]], during: list[Asked]) -> str:
    """Seconds of each phase, and p95 of the questions that were sent in it. The last holds the decision and the page as well."""
    lines = [
        "| phase of the round | seconds | p95 first question | p95 follow-up |",
        "| --- | --- | --- | --- |",
    ]
    for (phase, start), (_, end) in zip(phases, phases[1:], strict=False):
        inside = [a for a in during if start <= a.sent < end]
        p95 = [percentiles(inside, kind)[2] for kind in KINDS]
        cells = [f"{value:.3f} s" if value == value else "–" for value in p95]
        lines.append(f"| {phase} | {end - start:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(
    options: argparse.Namespace, folder: Path, checkpoint: Path
) -> tuple[str, dict[str, Any], dict[str, bool]]:
    """Tables, figures and which bars were met."""
    stream = read_stream(options.stream, options.corrections, options.seed,
                         [name for name in options.targets.split(",") if name])  # fmt: skip
    other = second_version(folder / "state", checkpoint, folder / "copy")
    pictures = Pictures()
    with running_server(folder, str(checkpoint)) as (url, process):
        site = ServerSite(url, folder / "state", checkpoint, 0.0)
        clinicians = Clinicians(stream.items, Flaws(), seed=options.seed)
        for item in stream.items:
            site.correct(item, clinicians)
        site.close()
        print(f"{len(stream.items)} corrections sent", flush=True)
        client = Client(url)
        Asker(url, pictures, 0.0, options.warmup).wait()
        before = Asker(url, pictures, options.pause, options.repeats).wait()
        print(f"{len(before)} questions before the round", flush=True)
        asker = Asker(url, pictures, options.pause)
        round_, seconds, phases = run_round(client, asker, options.round_minutes)
        during = [a for a in asker.asked if a.sent < phases[-1][1]]
        print(f"round: {round_['status']} after {seconds:.0f} s", flush=True)
        while (state := client.json("GET", "/medsegr/models"))["answering"] != state["current"]:
            time.sleep(POLL_S)
        asker = Asker(url, pictures, 0.0)
        switches = switch_versions(client, asker, other, options.switches, options.settle)
        asked = asker.end()
        restarted = process.poll() is not None
    failed = [a.error for a in (*before, *during, *asked) if a.error]
    wrong = [a for a in asked if not a.error and a.version not in in_charge(switches, a.sent, a.begun)]
    p95 = {kind: (percentiles(before, kind)[2], percentiles(during, kind)[2]) for kind in KINDS}
    met = {
        f"a round of {len(stream.items)} corrections ends within {ROUND_S:.0f} s": seconds <= ROUND_S
        and round_["status"] not in ("failed", "cancelled"),
        **{
            f"p95 of a {kind} during the round is at most {RATIO:g} times that of before": b <= RATIO * a
            for kind, (a, b) in p95.items()
        },
        f"a rollback answers within {ROLLBACK_S:g} s": max(waits([s for s in switches if s.how == "rollback"]))
        <= ROLLBACK_S,
        "no question failed and the server was not started again": not failed and not restarted,
        "each question was answered by the version that was in charge when it began": not wrong,
    }  # fmt: skip
    text = "\n\n".join([
        serving_table(before, during),
        phases_table(phases, during),
        f"Round: {seconds:.0f} s, {round_['status']}. {round_['sentence']}",
        switches_table(switches, asked),
        f"While versions changed: {len(asked)} questions; in all {len(failed)} failed, "
        f"{len(wrong)} were answered by a version that was not in charge.",
        "\n".join(f"- {'met' if ok else 'MISSED'}: {what}" for what, ok in met.items()),
    ])  # fmt: skip
    figures = {
        "before": [asdict(a) for a in before],
        "during": [asdict(a) for a in during],
        "phases": phases,
        "round": {"seconds": seconds, "decision": round_["decision"], "sentence": round_["sentence"]},
        "switches": [asdict(s) for s in switches],
        "while_switching": [asdict(a) for a in asked],
        "failed": failed,
        "wrong_version": len(wrong),
        "met": met,
    }
    return text, figures, met


def main() -> int:
    """Run, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stream", type=Path, required=True, help="folder of a labelled set")
    parser.add_argument("--targets", default="", help="structures, with commas between; all if left out")
    parser.add_argument("--corrections", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--repeats", type=int, default=60, help="questions of each kind before the round")
    parser.add_argument("--warmup", type=int, default=5, help="pairs of questions that are not counted")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between an answer and a question")
    parser.add_argument("--round-minutes", type=float, default=0.0, help="0: as the server has it")
    parser.add_argument("--switches", type=int, default=5, help="promotions, each with a rollback")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds between a switch and the next")
    parser.add_argument("--out", type=Path, default=Path("runs/round_cost.json"))
    options = parser.parse_args()
    setting = {
        "cores": len(os.sched_getaffinity(0)),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "niceness": os.nice(0),
        "load_before": os.getloadavg()[0],
        "options": {name: str(value) for name, value in vars(options).items()},
    }
    print(
        f"{setting['cores']} cores, OMP_NUM_THREADS {setting['OMP_NUM_THREADS'] or 'unset'}, niceness {setting['niceness']}, "
        f"load before the start {setting['load_before']:.1f}; {options.pause:g} s between questions\n",
        flush=True,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="medsegr-bench-", ignore_cleanup_errors=True) as folder:
            text, figures, met = measure(options, Path(folder), checkpoint_folder(options.checkpoint))
    except MedSegRError as error:
        raise SystemExit(str(error)) from error
    print(f"\n{text}")
    write_whole(options.out, json.dumps({"setting": setting, **figures}, indent=1))
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
