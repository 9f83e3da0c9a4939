"""How a PACS is named on the command line."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from live_server import ROOT


def test_a_user_and_password_in_the_url_log_in_and_are_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "apps" / "medsegr"))
    module = importlib.import_module("lib.dicomweb")
    pacs = module.open_archive("http://ada:p%40ss@pacs:8042/dicom-web", tmp_path, {})
    assert pacs.url == "http://pacs:8042/dicom-web" == pacs.name
    assert pacs.headers() == {"Authorization": "Basic YWRhOnBAc3M="}  # ada:p@ss
    assert "p@ss" not in repr(pacs) and "p%40ss" not in repr(pacs)
    monkeypatch.setattr(module.settings, "MONAI_LABEL_DICOMWEB_USERNAME", "bob")
    monkeypatch.setattr(module.settings, "MONAI_LABEL_DICOMWEB_PASSWORD", "x")
    named = module.open_archive("http://ada:p%40ss@pacs:8042/dicom-web", tmp_path, {})
    assert named.headers() == {"Authorization": "Basic Ym9iOng="}  # the settings come first
