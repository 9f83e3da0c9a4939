"""requirements.txt, pyproject.toml, the package's files and the environment have to tell the same story."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import medsegr

MODULES = {  # import name -> distribution, where they differ
    "PIL": "pillow",
    "SimpleITK": "simpleitk",
    "jwt": "pyjwt",
    "nrrd": "pynrrd",
    "segment_anything": "segment-anything",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "starlette": "fastapi",
    "yaml": "pyyaml",
}


def imports(file: Path) -> set[str]:
    """Top-level names of everything that a module imports, at its top or inside its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, object]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins(repository: Path) -> dict[str, Requirement]:
    lines = (
        line.split("#")[0].strip() for line in (repository / "requirements.txt").read_text().splitlines()
    )
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(pin.name): pin for pin in found}


def test_every_pin_is_exact_and_says_why(repository: Path) -> None:
    for line in (repository / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9-]+==\S+\s+# .{10,}", line), line


def test_pyproject_reads_its_dependencies_from_the_pins(project: dict[str, object]) -> None:
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}  # type: ignore[index]
    assert "dependencies" in project["project"]["dynamic"]  # type: ignore[index]


def test_python_versions_agree(project: dict[str, object]) -> None:
    wanted = SpecifierSet(project["project"]["requires-python"])  # type: ignore[index]
    assert [v for v in ("3.10", "3.11", "3.12", "3.13") if wanted.contains(v)] == ["3.11", "3.12"]
    assert wanted.contains(".".join(map(str, sys.version_info[:3])))


def test_the_pins_that_keep_the_server_alive(pins: dict[str, Requirement]) -> None:
    assert pins["monailabel"].specifier == SpecifierSet("==0.8.5")
    assert not pins["pydicom"].specifier.contains("3.0.1")
    assert not pins["numpy"].specifier.contains("2.0.0")
    assert "setuptools" in pins


def test_every_import_of_the_library_is_pinned(repository: Path, pins: dict[str, Requirement]) -> None:
    names = {n for file in (repository / "medsegr").rglob("*.py") for n in imports(file)}
    foreign = names - set(sys.stdlib_module_names) - {"medsegr"}
    unpinned = {n for n in foreign if canonicalize_name(MODULES.get(n, n)) not in pins}
    assert not unpinned


def test_the_library_knows_nothing_of_monai_label(repository: Path) -> None:
    """Arrows run one way: `monailabel` under `apps/` only, `fastapi` under `medsegr/web` and `apps/` only."""
    for file in (repository / "medsegr").rglob("*.py"):
        imported = imports(file)
        assert "monailabel" not in imported, file
        if "web" not in file.parts:
            assert "fastapi" not in imported, file


def test_the_environment_has_the_pinned_versions(pins: dict[str, Requirement]) -> None:
    wrong = {n: metadata.version(n) for n, p in pins.items() if not p.specifier.contains(metadata.version(n))}
    assert not wrong


def test_the_version_is_a_plain_literal_that_setuptools_can_read(repository: Path) -> None:
    assert f'__version__ = "{medsegr.__version__}"' in (repository / "medsegr" / "__init__.py").read_text()


def test_licences(repository: Path) -> None:
    assert "Apache License" in (repository / "LICENSE").read_text()
    weights = (repository / "medsegr" / "weights" / "embedded" / "LICENSE").read_text()
    assert "CC BY-NC-SA 4.0" in weights
    assert "Research use only" in weights
