"""`per_case.csv` as a journal: rows are appended conversation by conversation, and a run that was killed goes on where it
stopped.

A line that was cut off and the rows of a conversation that was not finished are dropped, so the file ends up the same, byte
for byte, whether or not it was interrupted.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegr.errors import MedSegRError
from medsegr.evaluation.case import COLUMNS, Case, as_row, from_row
from medsegr.files import write_whole

ROWS, OPTIONS = "per_case.csv", "run.json"


def claim(folder: Path, options: Mapping[str, Any]) -> None:
    """Take `folder` for a run with these options, or accept it if it was taken for the same.

    Raises `MedSegRError` naming the first option that differs, or if there are rows of an unknown run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / OPTIONS
    if not path.exists():
        if (folder / ROWS).exists():
            raise MedSegRError(
                f"{folder} holds a {ROWS} but no {OPTIONS}, so it cannot be continued; choose another --out or remove the folder."
            )
        write_whole(path, json.dumps(options, indent=1) + "\n")
        return
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MedSegRError(
            f"{path} is damaged ({error}); choose another --out or remove the folder."
        ) from error
    wanted = json.loads(json.dumps(options))
    for key in dict.fromkeys([*wanted, *earlier]):
        if wanted.get(key) != earlier.get(key):
            raise MedSegRError(
                f"{folder} holds a run with {key} {earlier.get(key)!r}, not {wanted.get(key)!r}; choose another --out or "
                "remove the folder."
            )


class Journal:
    """The rows of a run, in the order of its plan: `plan` lists conversation ids and how many rows each gives."""

    def __init__(self, path: Path, plan: Sequence[tuple[str, int]]) -> None:
        self._path, self._plan = path, plan

    def recover(self) -> int:
        """Make the file end after its last complete conversation; returns how many there are. A missing file is begun.

        Raises `MedSegRError` if its columns or conversations are not those of the plan.
        """
        header = _line(list(COLUMNS))
        if not self._path.exists() or self._path.stat().st_size < len(header):
            self._path.write_bytes(header)
            return 0
        lines = self._path.read_bytes().splitlines(keepends=True)
        if lines[0] != header:
            raise MedSegRError(
                f"{self._path} has other columns than this version writes; choose another --out."
            )
        if not lines[-1].endswith(b"\n"):
            lines.pop()
        kept, done = len(header), 0
        row = 1
        for conversation, rows in self._plan:
            mine = lines[row : row + rows]
            if len(mine) < rows:
                break
            self._require(mine, conversation, row)
            kept += sum(map(len, mine))
            row, done = row + rows, done + 1
        else:
            if row < len(lines):
                raise MedSegRError(
                    f"{self._path} has {len(lines) - 1} rows, but this run has {row - 1}; choose another --out."
                )
        with self._path.open("r+b") as stream:
            stream.truncate(kept)
        return done

    def append(self, cases: Sequence[Case]) -> None:
        """Add a conversation's rows in one write."""
        rows = b"".join(_line(list(as_row(case).values())) for case in cases)
        with self._path.open("ab") as stream:
            stream.write(rows)

    def read(self) -> list[Case]:
        """All rows as cases; raises `MedSegRError` naming a row that cannot be read."""
        with self._path.open(encoding="utf-8", newline="") as stream:
            cases = []
            for number, row in enumerate(csv.DictReader(stream), start=2):
                try:
                    cases.append(from_row(row))
                except (KeyError, ValueError, TypeError) as error:
                    raise MedSegRError(
                        f"{self._path}:{number} is not a row of this version ({error})."
                    ) from error
        return cases

    def _require(self, lines: Sequence[bytes], conversation: str, row: int) -> None:
        wanted = " ".join(conversation.split())
        for number, line in enumerate(lines, start=row + 1):
            found = next(csv.reader([line.decode("utf-8", errors="replace")]))
            if found[0] != wanted or len(found) != len(COLUMNS):
                raise MedSegRError(
                    f"{self._path}:{number} is about conversation '{found[0]}'; expected '{wanted}': choose another --out."
                )


def _line(cells: Sequence[object]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue().encode("utf-8")
