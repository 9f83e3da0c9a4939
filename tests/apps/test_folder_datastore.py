"""The list of a folder of images: put in place whole, and no obstacle to a start where it is damaged."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_server import ROOT
from PIL import Image

CONFIG, DAMAGED = "datastore_v2.json", "datastore_v2.json.damaged"


@pytest.fixture(autouse=True)
def app_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's modules are imported as the server does."""
    monkeypatch.syspath_prepend(str(ROOT / "apps" / "medsegr"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def _opened(folder: Path) -> Any:
    module = importlib.import_module("lib.datastore.local")
    return module.FolderDatastore(str(folder), extensions=["*.png"], auto_reload=False)


def test_it_lists_images_and_keeps_what_is_noted(folder: Path) -> None:
    opened = _opened(folder)
    assert sorted(opened.list_images()) == ["a", "b"]
    opened.update_image_info("a", {"seen": "yes"})
    assert _opened(folder).get_image_info("a")["seen"] == "yes"
    assert not list(folder.glob(".*.part"))


@pytest.mark.parametrize("damage", ["", '{"name": "new-data', "[]"])
def test_a_list_that_was_cut_off_is_set_aside(
    folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    _opened(folder).update_image_info("a", {"seen": "yes"})
    (folder / CONFIG).write_text(damage)
    again = _opened(folder)
    assert sorted(again.list_images()) == ["a", "b"]
    assert (folder / DAMAGED).read_text() == damage
    assert "listed anew" in caplog.text
    json.loads((folder / CONFIG).read_text())


def test_a_write_that_ends_halfway_leaves_the_list_of_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = _opened(folder)
    opened.update_image_info("a", {"seen": "yes"})
    before = (folder / CONFIG).read_bytes()

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        opened.update_image_info("b", {"seen": "no"})
    assert (folder / CONFIG).read_bytes() == before
