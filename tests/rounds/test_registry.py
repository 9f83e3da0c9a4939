"""Versions: whole or not there, never changed, and one in charge at any instant."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import TARGETS, write_checkpoint

import medsegr
from medsegr.rounds import version_files
from medsegr.rounds.audit import Audit
from medsegr.rounds.database import Database
from medsegr.rounds.errors import StoreError
from medsegr.rounds.registry import Registry, Version, in_charge

Make = Callable[..., Version]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


@pytest.fixture
def registry(tmp_path: Path, base: Path) -> Registry:
    return Registry(Database(tmp_path / "state"), base)


@pytest.fixture
def make(registry: Registry, tmp_path: Path) -> Make:
    """Registers a version whose weights are the given bytes."""

    def register(weights: bytes, parent: str = "base-1", targets: tuple[str, ...] = TARGETS) -> Version:
        work = write_checkpoint(tmp_path / f"work-{weights.decode()}", "draft", targets, weights)
        return registry.register(work, parent, None, {"metrics": {"dice": 0.5}})

    return register


def writable(path: Path) -> Path:
    path.parent.chmod(0o755)
    path.chmod(0o644)
    return path


def test_without_rounds_the_base_is_in_charge_under_its_own_name(registry: Registry, base: Path) -> None:
    current = registry.current()
    assert (current.name, current.number, current.directory) == ("base-1", 0, base)
    assert current.targets == TARGETS and registry.versions() == [current]
    assert registry.previous() is None and registry.verify("base-1") is None
    with pytest.raises(StoreError, match="none to go back to"):
        registry.rollback("anna", "")


def test_a_registered_version_is_moved_named_read_only_and_not_in_charge(
    registry: Registry, make: Make, tmp_path: Path
) -> None:
    version = make(b"one", targets=(*TARGETS, "optic disc"))
    assert version.name.startswith("v0001-") and len(version.name) == len("v0001-") + 8
    assert not (tmp_path / "work-one").exists()
    assert version.directory == registry.models / version.name
    meta = json.loads((version.directory / "meta.json").read_text())
    assert (meta["version"], meta["parent"], meta["licence"]) == (version.name, "base-1", "CC0")
    assert meta["learnt"] == {"metrics": {"dice": 0.5}, "medsegr": medsegr.__version__}
    assert version.targets[-1] == "optic disc" and version.meta["metrics"] == {"dice": 0.5}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in version.directory.rglob("*") if path.is_file()}
    assert modes == {0o444} and stat.S_IMODE(version.directory.stat().st_mode) == 0o555
    assert registry.current().name == "base-1" and registry.get(version.name) == version
    assert registry.verify(version.name) is None


def test_the_name_follows_the_content(make: Make) -> None:
    one, other, again = make(b"one"), make(b"other"), None
    assert one.name[6:] != other.name[6:]
    assert [one.number, other.number] == [1, 2] and again is None


def test_files_that_did_not_change_are_shared_between_versions_but_not_with_the_base(
    make: Make, base: Path
) -> None:
    one = make(b"one")
    two = make(b"two", one.name)
    shared = Path("context/model.safetensors")
    assert (one.directory / shared).samefile(two.directory / shared)
    assert not (one.directory / "grounding.safetensors").samefile(two.directory / "grounding.safetensors")
    assert not (one.directory / "meta.json").samefile(two.directory / "meta.json")
    assert stat.S_IMODE((base / shared).stat().st_mode) != 0o444 and not (base / shared).samefile(
        one.directory / shared
    )


def test_a_damaged_file_does_not_spread_to_the_next_version(registry: Registry, make: Make) -> None:
    one = make(b"one")
    writable(one.directory / "context" / "model.safetensors").write_bytes(b"LANGUAGE")
    two = make(b"two", one.name)
    assert (two.directory / "context" / "model.safetensors").read_bytes() == b"language"
    assert registry.verify(two.name) is None
    assert "context/model.safetensors" in (registry.verify(one.name) or "")


def test_what_is_no_checkpoint_is_refused_and_stays(registry: Registry, tmp_path: Path) -> None:
    work = write_checkpoint(tmp_path / "work")
    with pytest.raises(StoreError, match="No model version has this name"):
        registry.register(work, "v0009-00000000", None)
    (work / "config.json").unlink()
    with pytest.raises(StoreError, match=r"config\.json is missing"):
        registry.register(work, "base-1", None)
    (work / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="is a link"):
        registry.register(work, "base-1", None)
    assert work.is_dir() and registry.versions() == [registry.base]


def test_promote_and_go_back_step_by_step(registry: Registry, make: Make) -> None:
    one = make(b"one")
    two = make(b"two", one.name)
    registry.promote(one.name, "anna", "better")
    registry.promote(two.name, "anna", "better still")
    registry.promote(two.name, "anna", "again")  # is in charge already
    assert registry.current() == two and registry.previous() == one
    assert registry.rollback("ben", "worse on my cases") == one
    assert registry.current() == one
    assert registry.rollback("ben", "worse as well").name == "base-1"
    assert registry.current() == registry.base and registry.previous() is None
    charges = registry.charges()
    assert [(c.version, c.action, c.editor) for c in charges] == [
        (one.name, "promote", "anna"),
        (two.name, "promote", "anna"),
        (one.name, "rollback", "ben"),
        ("base-1", "rollback", "ben"),
    ]
    assert charges[2].reason == "worse on my cases"
    audit = Audit(registry.database)
    assert [e.action for e in audit.entries()] == [
        "register",
        "register",
        "promote",
        "promote",
        "rollback",
        "rollback",
    ]
    assert audit.verify() is None
    assert {v.name for v in registry.ever_in_charge()} == {"base-1", one.name, two.name}


def test_nothing_changes_where_another_is_in_charge_than_expected(registry: Registry, make: Make) -> None:
    one, two = make(b"one"), make(b"two")
    registry.promote(one.name, "anna", "")
    with pytest.raises(StoreError, match="not base-1"):
        registry.promote(two.name, "round", "", expected="base-1")
    assert registry.current() == one and len(registry.charges()) == 1


def test_a_promotion_belongs_to_the_callers_transaction(registry: Registry, make: Make) -> None:
    one = make(b"one")
    with pytest.raises(RuntimeError), registry.database.writing() as session:
        registry.promote(one.name, "round", "", session=session)
        raise RuntimeError("the round could not be closed")
    assert registry.current() == registry.base and len(Audit(registry.database).entries()) == 1


def test_a_damaged_version_is_neither_promoted_nor_gone_back_to(registry: Registry, make: Make) -> None:
    one, two = make(b"one"), make(b"two")
    registry.promote(one.name, "anna", "")
    registry.promote(two.name, "anna", "")
    writable(one.directory / "grounding.safetensors").write_bytes(b"0ne")
    with pytest.raises(StoreError, match="is damaged"):
        registry.promote(one.name, "anna", "")
    assert registry.rollback("anna", "").name == "base-1"


def test_files_are_hashed_once_while_nothing_changes_but_for_every_promotion(
    registry: Registry, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = make(b"one"), make(b"two")
    hashed: list[str] = []
    real = version_files.file_hashes

    def counting(directory: Path) -> version_files.Hashes:
        hashed.append(directory.name)
        return real(directory)

    for module in ("registry", "verifying"):
        monkeypatch.setattr(f"medsegr.rounds.{module}.file_hashes", counting, raising=False)
    for version in (one, two):
        registry.promote(version.name, "anna", "")
    hashed.clear()
    assert [registry.previous() for _ in range(3)] == [
        one,
        one,
        one,
    ] and hashed == []  # known since it was promoted
    assert registry.verify(one.name) is None and hashed == [one.name]
    weights = writable(one.directory / "grounding.safetensors")
    before = weights.stat()
    weights.write_bytes(b"0ne")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    hashed.clear()
    assert [registry.previous() for _ in range(2)] == [registry.base] * 2 and hashed == [one.name]
    weights.write_bytes(b"one")
    assert registry.previous() == one
    changed = weights.stat()
    weights.write_bytes(b"0ne")
    os.utime(weights, ns=(changed.st_atime_ns, changed.st_mtime_ns))  # shows in the hash alone
    assert registry.previous() == one
    with pytest.raises(StoreError, match="is damaged"):
        registry.promote(one.name, "anna", "")
    assert registry.rollback("anna", "").name == "base-1"


def test_at_the_start_a_damaged_version_gives_way_to_its_nearest_whole_ancestor(
    registry: Registry, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = make(b"one")
    two = make(b"two", one.name)
    three = make(b"three", two.name)
    for version in (one, three):
        registry.promote(version.name, "anna", "")
    assert registry.settle() == three
    version_files.remove(three.directory)
    writable(two.directory / "grounding.safetensors").unlink()
    assert registry.settle() == one and registry.current() == one
    assert f"{one.name} is in charge again" in caplog.text and "folder is missing" in caplog.text
    assert registry.charges()[-1].action == "fallback"
    version_files.remove(one.directory)
    assert registry.settle() == registry.base


def test_an_earlier_base_that_was_in_charge_is_todays_base(
    registry: Registry, make: Make, tmp_path: Path
) -> None:
    one = make(b"one")
    registry.promote(one.name, "anna", "")
    registry.rollback("anna", "")
    newer = Registry(registry.database, write_checkpoint(tmp_path / "newer", "base-2"))
    assert newer.current() == newer.base and newer.base.name == "base-2"


def test_the_stack_of_versions_in_charge() -> None:
    assert in_charge([]) == []
    assert in_charge([("a", "promote"), ("b", "promote"), ("a", "rollback")]) == ["a"]
    assert in_charge([("a", "promote"), ("b", "promote"), ("a", "promote")]) == ["a", "b", "a"]
    assert in_charge([("b", "promote"), ("a", "fallback")]) == ["a"]


def test_a_version_on_another_file_system_is_copied_beside_its_place(
    registry: Registry, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if self.name.startswith("work"):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    one = make(b"one")
    assert registry.verify(one.name) is None and not (tmp_path / "work-one").exists()
    assert {path.name for path in registry.models.iterdir() if path.is_dir()} == {one.name}


STEPS = ("write_meta", "share", "place", "writing")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [True, False])
def test_a_killed_registration_leaves_nothing_and_can_be_done_again(
    registry: Registry, tmp_path: Path, base: Path, step: str, before: bool
) -> None:
    work = write_checkpoint(tmp_path / "work", "draft", weights=b"one")
    script = textwrap.dedent(
        f"""
        import os, sys
        from pathlib import Path
        from medsegr.rounds import registry as module
        from medsegr.rounds.database import Database
        state, base, work = map(Path, sys.argv[1:])
        made = module.Registry(Database(state), base)
        owner = made.database if {step!r} == "writing" else module
        inner = getattr(owner, {step!r})
        def dying(*args, **kwargs):
            if {before}:
                os.kill(os.getpid(), 9)
            inner(*args, **kwargs)
            os.kill(os.getpid(), 9)
        setattr(owner, {step!r}, dying)
        made.register(work, "base-1", None)
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", script, str(registry.database.folder), str(base), str(work)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert Registry(registry.database, base).versions() == [registry.base]
    if not work.exists():  # it was moved, but does not count: the round does it again
        write_checkpoint(work, "draft", weights=b"one")
    version = registry.register(work, "base-1", None)
    assert version.number == 1 and registry.verify(version.name) is None
    assert [path for path in registry.models.iterdir() if path.is_dir()] == [version.directory]
