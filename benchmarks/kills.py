"""Does a kill at any instant lose anything? A real server is killed again and again in the middle of turns, corrections,
training, promotions and rollbacks, and after each kill the state is compared with what was accepted.

    python benchmarks/kills.py --kills 60 --stream DATA/corrections/drishti_fundus
    python benchmarks/kills.py --kills 20 --checkpoint tiny

The server is MONAI Label with this app on a folder of images (without `--stream`: slices of phantoms). One client works without
pause. SIGKILL goes to the server with all its processes, to the server alone, to a model's process or to the trainer, at a random
instant of a phase. Rounds are short and adopt what they make; see `kills_parts.short_round`. After each kill the server must
answer, every accepted turn, correction, promotion and round must be there as it was sent, `current` must name a whole version,
the database and the audit must be whole, and nothing may be left open for ever. Exit code 1 if anything was lost or broken.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from kills_parts import images as labelled  # noqa: E402
from kills_parts.checking import Inspector  # noqa: E402
from kills_parts.checkpoints import register_spares, write_tiny  # noqa: E402
from kills_parts.clinic import Clinic  # noqa: E402
from kills_parts.killing import Kill, Killer, plan  # noqa: E402
from kills_parts.results import table  # noqa: E402
from kills_parts.server import Server, make_server  # noqa: E402

from medsegr.errors import MedSegRError  # noqa: E402
from medsegr.files import write_whole  # noqa: E402
from medsegr.web.checkpoints import checkpoint_folder  # noqa: E402

TINY = "tiny"
SPARES = 2


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument(
        "--checkpoint", default="embedded", help=f"embedded, a directory, or {TINY} for a random one"
    )
    parser.add_argument("--stream", type=Path, help="folder of a labelled set; phantoms if left out")
    parser.add_argument("--images", type=int, default=20, help="that are asked about and corrected")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round-minutes", type=float, default=10.0, help="the server's `train_minutes`")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="begin no further kill after that (0: no such limit)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/kills.json"))
    parser.add_argument(
        "--keep", type=Path, help="a new folder for the server's files, to be looked at later"
    )
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run the plan; 0 if nothing was lost or broken."""
    options = arguments(given)
    folder = (options.keep or Path(tempfile.mkdtemp(prefix="medsegr-kills-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _run(options, folder)
    finally:
        if options.keep is None:
            _remove(folder)


def _run(options: argparse.Namespace, folder: Path) -> int:
    stream = options.stream
    images = (
        labelled.of_stream(stream, options.images, options.seed)
        if stream
        else labelled.of_phantoms(options.images, options.seed)
    )
    labelled.write(images, folder / "studies")
    tiny = options.checkpoint == TINY
    checkpoint = write_tiny(folder / TINY) if tiny else checkpoint_folder(options.checkpoint)
    register_spares(folder / "state", checkpoint, SPARES)
    conf = {"train_minutes": f"{options.round_minutes:g}"}
    server = make_server(folder, folder / "studies", str(checkpoint), conf)
    clinic = Clinic(server.url, images, options.seed)
    killer = Killer(server, clinic, checkpoint, options.seed)
    done: list[Kill] = []
    lost: list[str] = []
    broken: list[str] = []
    began = time.monotonic()
    try:
        print(f"The server answers after {server.start():.1f} s.", flush=True)
        clinic.start()
        killer.watch_a_round()
        print("A round takes {:.0f} s, its last part {:.1f} s.".format(*killer.round_s), flush=True)
        for kill in killer.run(plan(options.kills, options.seed)):
            done.append(kill)
            print(_sentence(len(done), kill), flush=True)
            write_whole(options.out, json.dumps(_report(options, server, clinic, done), indent=1))
            if options.minutes and time.monotonic() - began > 60 * options.minutes:
                break
        lost, broken = killer.settle()
    except (MedSegRError, requests.RequestException) as error:
        broken.append(f"The run ended early: {error}")
    finally:
        clinic.close()
        server.stop()
    for sentence in (*lost, *broken):
        print(f"At the end: {sentence}")
    seconds = round(time.monotonic() - began)
    end = {"lost": lost, "broken": broken, "seconds": seconds, "rounds": _rounds(folder, checkpoint)}
    report = {**_report(options, server, clinic, done), "end": end}
    write_whole(options.out, json.dumps(report, indent=1))
    accepted = report["accepted"]
    print(f"\n{table(done)}\n\nAccepted: {accepted}. Rounds: {end['rounds']}. {seconds} s; {options.out}")
    return int(bool(lost or broken or any(kill.lost or kill.broken for kill in done)))


def _report(
    options: argparse.Namespace, server: Server, clinic: Clinic, kills: Sequence[Kill]
) -> dict[str, Any]:
    accepted = clinic.accepted
    return {
        "checkpoint": options.checkpoint,
        "stream": options.stream.name if options.stream else "phantoms",
        "seed": options.seed,
        "planned": options.kills,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "accepted": {name: len(getattr(accepted, name)) for name in vars(accepted)},
        "refused": dict(clinic.refused),
        "failed": dict(clinic.failed),
        "server_starts_s": [round(seconds, 1) for seconds in server.starts_s],
        "kills": [kill.to_json() for kill in kills],
    }


def _rounds(folder: Path, checkpoint: Path) -> dict[str, int]:
    inspector = Inspector(folder / "state", checkpoint)
    found = dict(inspector.statuses())
    inspector.close()
    return found


def _sentence(number: int, kill: Kill) -> str:
    place = f" ({kill.round_phase})" if kill.round_phase else ""
    found = "; ".join([*(f"LOST {text}" for text in kill.lost), *(f"BROKEN {text}" for text in kill.broken)])
    when = "in" if kill.hit else "just after"
    return (
        f"{number:3d}. {kill.target} {when} {kill.phase}{place}, {kill.delay_s:.2f} s into it; "
        f"answers again after {kill.ready_s:.1f} s. {found or 'All there.'}"
    )


def _remove(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)  # versions are read-only
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
