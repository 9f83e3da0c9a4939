"""What the server reads of a checkpoint without loading it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medsegr.errors import CheckpointError
from medsegr.web.checkpoints import EMBEDDED, checkpoint_folder, read_targets


def test_targets_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "targets": ["b", "a"]}))
    assert read_targets(checkpoint_folder(str(tmp_path))) == ("b", "a")
    assert EMBEDDED.parts[-3:] == ("medsegr", "weights", "embedded")


@pytest.mark.parametrize(
    "text",
    [None, "{", "[]", "{}", '{"targets": "a"}', '{"targets": [1]}', json.dumps({"targets": ["a"] * 256})],
)
def test_a_damaged_config_is_one_sentence(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"\.$"):
        read_targets(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="elsewhere"):
        checkpoint_folder(str(tmp_path / "elsewhere"))
