"""Stands in for `medsegr.rounds.runner` where a round's training is not what is tested. The round's `reason` says what to do:
"adopt NAME" registers a version that knows the structure NAME as well and puts it in charge; "slow" takes a minute, with a
child process; "die" ends without a word; anything else is refused by the gate.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from medsegr.rounds.database import Database
from medsegr.rounds.registry import Registry
from medsegr.rounds.rounds_log import RoundLog, RoundStatus


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path)
    parser.add_argument("--round", type=int)
    parser.add_argument("--checkpoint", type=Path)
    given = parser.parse_args()
    database = Database(given.state)
    log, registry = RoundLog(database), Registry(database, given.checkpoint)
    champion = registry.current()
    this = log.start(given.round, champion.name)
    reason = this.options["reason"]
    log.progress(this.id, "training", 1, 4)
    folder = database.paths.rounds / str(this.id)
    folder.mkdir(exist_ok=True)
    if reason == "die":
        os._exit(3)
    if reason == "slow":
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
        )
        (folder / "child.txt").write_text(str(child.pid))
        time.sleep(60)
    numbers = {"corrected_after": 0.875}
    if not reason.startswith("adopt"):
        decision = {"sentence": "Not adopted, because the liver got worse.", "numbers": numbers}
        log.finish(this.id, RoundStatus.REFUSED, decision)
        return 0
    work = folder / "challenger"
    shutil.copytree(champion.directory, work)
    for path in (work, *work.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    config = json.loads((work / "config.json").read_text())
    config["targets"] += [name for name in [reason.removeprefix("adopt ")] if name not in config["targets"]]
    (work / "config.json").write_text(json.dumps(config))
    if not (work / "meta.json").exists():
        (work / "meta.json").write_text('{"version": "draft", "licence": "CC0"}')
    (work / "grounding.safetensors").write_text(f"round {this.id}")
    version = registry.register(work, champion.name, this.id)
    (folder / "page.html").write_text("<!doctype html><title>Round</title>")
    sentence = f"Adopted: {version.name} is better."
    with database.writing() as session:
        registry.promote(version.name, this.editor, sentence, expected=champion.name, session=session)
        log.finish(
            this.id,
            RoundStatus.ADOPTED,
            {"sentence": sentence, "numbers": numbers},
            version.name,
            session=session,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
