"""`medsegr.rounds.runner` for a round of seconds whose challenger is adopted whatever it has learnt.

The server starts it in the runner's place (MEDSEGR_ROUND_RUNNER). Steps are few, the newest corrections are enough, and the gate
is left out, so that registering a version and putting it in charge happen in every round that lives long enough. All else,
from freezing the data to the last transaction, is the runner's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from medsegr.rounds import runner
from medsegr.rounds.cases import CaseStore
from medsegr.rounds.database import Database
from medsegr.rounds.tables import RoundRow, Split

OPTIONS = {
    "gate": False, "steps": 10, "variants": 1, "distil": False, "images": 2, "replay_images": 2, "masks": 6,
    "regression_pictures": 3,
}  # fmt: skip
NEWEST = {Split.TRAIN: 6, Split.VAL: 2}


def shorten(state: Path, round_id: int, url: str | None) -> None:
    """Give the round its options and, unless it is frozen already, the newest corrections of each split."""
    database = Database(state, url)
    cases = CaseStore(database)
    newest = {
        split.value: [case.correction.id for case in cases.cases(split)[-count:]]
        for split, count in NEWEST.items()
    }
    with database.writing() as session:
        row = session.get(RoundRow, round_id)
        if row is not None:
            row.options = {**row.options, **OPTIONS}
            row.data = row.data or newest
    database.dispose()


def main(arguments: Sequence[str] | None = None) -> int:
    """The runner's command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--round", type=int, required=True)
    given, _ = parser.parse_known_args(arguments)
    shorten(given.state, given.round, os.environ.get("MEDSEGR_DATABASE"))
    return runner.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
