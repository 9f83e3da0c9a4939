"""The state of a run on disk: one line a finished draw, forced to the disk at once; what a killed run had finished is kept.

OUT.part.jsonl grows; OUT.meta.json says what the run was started with; OUT.rejected.jsonl and OUT appear whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medsegr.errors import MedSegRError, QAFileError
from medsegr.files import write_whole
from medsegr.qa.annotate.writer import Outcome, Rejected
from medsegr.qa.schema import Conversation


@dataclass(frozen=True)
class Files:
    """The files of a run beside OUT."""

    out: Path

    @property
    def part(self) -> Path:
        """Finished draws of an unfinished run."""
        return self.out.with_name(f"{self.out.stem}.part.jsonl")

    @property
    def rejected(self) -> Path:
        """What was not kept, with step and reason."""
        return self.out.with_name(f"{self.out.stem}.rejected.jsonl")

    @property
    def meta(self) -> Path:
        """Backend, model, prompt version, seed and counts."""
        return self.out.with_name(f"{self.out.stem}.meta.json")


def read_part(path: Path) -> dict[int, Outcome]:
    """Finished draws by index. A last line without its end (the run was killed in the middle of it) is cut off; raises
    `MedSegRError` for any other broken line."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as stream:
            stream.truncate(whole)
    done = {}
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        outcome = _outcome(line, f"{path}:{number}")
        done[outcome.index] = outcome
    return done


def append(path: Path, outcome: Outcome) -> None:
    """Add a finished draw and wait until the disk has it."""
    record = {
        "index": outcome.index,
        "conversations": [c.to_json() for c in outcome.conversations],
        "rejected": [asdict(r) for r in outcome.rejected],
        "refused": outcome.refused,
    }
    with path.open("ab") as stream:
        stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """Write what was not kept, whole or not at all."""
    write_whole(path, "".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in rejected))


def write_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """Write what is known about the run, whole or not at all."""
    write_whole(path, json.dumps(meta, ensure_ascii=False, indent=2) + "\n")


def read_meta(path: Path) -> dict[str, Any]:
    """What a run was started with; raises `MedSegRError` if it cannot be read."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MedSegRError(
            f"{path} cannot be read ({error}); expected the description of the unfinished run beside it."
        ) from error
    if not isinstance(meta, dict):
        raise MedSegRError(f"{path} holds a {type(meta).__name__}; expected a JSON object.")
    return meta


def _outcome(line: bytes, where: str) -> Outcome:
    try:
        row = json.loads(line)
        return Outcome(
            int(row["index"]),
            tuple(Conversation.from_json(c) for c in row["conversations"]),
            tuple(Rejected(**r) for r in row["rejected"]),
            bool(row["refused"]),
        )
    except QAFileError as error:
        raise MedSegRError(f"{where}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MedSegRError(
            f"{where} is no finished draw ({error}); mend or remove the line and run again."
        ) from error
