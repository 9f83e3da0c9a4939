"""The panel's style and OHIF's live in one page: neither may name the other's classes, nor ask for foreign fonts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PANEL = (ROOT / "plugins" / "ohif" / "panel.css").read_text()
CLASS = re.compile(r"\.(-?[A-Za-z_][\w-]*)")


def classes(style: str) -> set[str]:
    """Names of the classes in the selectors of a style sheet."""
    bare = re.sub(r"/\*.*?\*/|\\.|\"[^\"]*\"|'[^']*'|url\([^)]*\)", "", style, flags=re.DOTALL)
    return {name for selector in re.findall(r"([^{}]*)\{", bare) for name in CLASS.findall(selector)}


def used() -> set[str]:
    """Names of the classes that the panel's elements get, as far as they are written out, and of states."""
    lights = {"ready", "starting", "away", "login", "unknown"}
    turns = {
        f"is-{status}"
        for status in ("sending", "queued", "running", "done", "cancelled", "failed", "interrupted")
    }
    modules = "".join(file.read_text() for file in (ROOT / "plugins" / "ohif" / "src" / "views").glob("*.js"))
    written = re.findall(r"class: [\"`]([^\"`]*)[\"`]", modules)
    assert len(written) > 30
    return lights | turns | {name for names in written for name in re.sub(r"\$\{[^}]*\}", "", names).split()}


def bundled() -> Path:
    monailabel = pytest.importorskip("monailabel")
    return Path(monailabel.__file__).parent / "endpoints" / "static" / "ohif"


@pytest.mark.parametrize(
    "folder", [bundled, lambda: ROOT / ".cache" / "ohif-3.11.1" / "dist"], ids=["wheel", "npm"]
)
def test_no_class_has_two_owners(folder: object) -> None:
    assert callable(folder)
    files = sorted(folder().glob("*.css"))
    if not files:
        pytest.skip("needs this OHIF")
    theirs = set().union(*(classes(file.read_text()) for file in files))
    assert len(theirs) > 100
    assert (classes(PANEL) | used()) & theirs == set()


def test_every_rule_is_below_the_panel() -> None:
    bare = re.sub(r"/\*.*?\*/", "", PANEL, flags=re.DOTALL)
    for selector in re.findall(r"([^{}]+)\{", bare):
        if selector.strip().startswith("@container"):
            continue
        assert all(one.strip().startswith(".medsegr-panel") for one in re.split(r",(?![^(]*\))", selector)), (
            selector
        )


def test_nothing_comes_from_elsewhere() -> None:
    assert not re.search(r"@import|@font-face|url\(", PANEL)
    for module in (ROOT / "plugins" / "ohif" / "src").rglob("*.js"):
        assert not re.search(
            r"https?://|innerHTML|insertAdjacentHTML|document\.write|eval\(", module.read_text()
        ), module
