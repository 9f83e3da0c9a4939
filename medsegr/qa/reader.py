"""MedSeg-QA files on disk: JSON Lines, one conversation a line, read lazily and written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from medsegr.errors import QAFileError
from medsegr.qa.schema import Conversation


def read_qa(path: Path) -> Iterator[Conversation]:
    """Conversations of a file in order; blank lines are skipped.

    Raises `QAFileError` naming file and line: unreadable file, broken JSON, broken schema, an id that occurs
    twice.
    """
    seen: dict[str, int] = {}
    for number, line in numbered_lines(Path(path)):
        conversation = parse_line(line, f"{path}:{number}")
        if conversation.id in seen:
            raise QAFileError(
                f"{path}:{number}: id '{conversation.id}' was used in line {seen[conversation.id]}; "
                "expected unique ids."
            )
        seen[conversation.id] = number
        yield conversation


def write_qa(path: Path, conversations: Iterable[Conversation]) -> int:
    """Write conversations as JSON Lines and return their number; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as stream:
            for conversation in conversations:
                stream.write(json.dumps(conversation.to_json(), ensure_ascii=False) + "\n")
                count += 1
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a file that are not blank, numbered from 1; raises `QAFileError` if it cannot be read."""
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise QAFileError(
            f"{path} cannot be read as a MedSeg-QA file ({error}); expected JSON Lines in UTF-8."
        ) from error


def parse_line(line: str, where: str) -> Conversation:
    """The conversation of one line; raises `QAFileError` that begins with `where`."""
    try:
        return Conversation.from_json(json.loads(line))
    except json.JSONDecodeError as error:
        raise QAFileError(f"{where}: not valid JSON ({error}); expected one conversation a line.") from error
    except QAFileError as error:
        raise QAFileError(f"{where}: {error}") from error
