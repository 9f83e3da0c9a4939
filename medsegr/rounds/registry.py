"""Model versions: immutable checkpoint directories, and who of them is in charge.

A version is there if, and only if, its row is; the row is added when the directory is whole and on the disk. The version in
charge is named by the last row of `charges`: promoting, going back and falling back each add one, together with the audit's
row. A crash at any instant leaves the old state or the new one. The trainer registers here, the server and the command line
read and promote; all of them may at the same time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from medsegr import __version__
from medsegr.model.large.presets import FORMAT as LARGE_FORMAT
from medsegr.rounds.audit import SERVER, append
from medsegr.rounds.database import Database, now
from medsegr.rounds.errors import StoreError
from medsegr.rounds.tables import ChargeRow, VersionRow
from medsegr.rounds.verifying import Verifier
from medsegr.rounds.version_files import (
    CONFIG,
    META,
    digest,
    file_hashes,
    place,
    read_json,
    remove,
    share,
    write_meta,
)

logger = logging.getLogger(__name__)
LOCK = ".registering.lock"
PROMOTE, ROLLBACK, FALLBACK = "promote", "rollback", "fallback"


class ChargeChanged(StoreError):
    """Another change of who is in charge came first."""


@dataclass(frozen=True)
class Version:
    """A model version. Number 0 is the checkpoint that the server was started with: it has no parent, round or time, and is
    named by the version string of its `meta.json`. `sha256` covers every file; `meta` is what was recorded with it.
    """

    name: str
    number: int
    parent: str | None
    round_id: int | None
    created: str | None
    directory: Path
    sha256: str | None
    meta: dict[str, Any]

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the structures that it knows, in the order of its `config.json`."""
        return tuple(self.meta.get("targets", ()))


@dataclass(frozen=True)
class Charge:
    """One change of who is in charge."""

    version: str
    action: str
    editor: str
    reason: str
    created: str


class Registry:
    """The versions of one database; `base` is the checkpoint that the server was started with. Raises `StoreError`."""

    def __init__(self, database: Database, base: Path) -> None:
        self.database, self.models = database, database.paths.models
        self._verifier = Verifier()
        meta = read_json(base / META) if (base / META).is_file() else {}
        config = read_json(base / CONFIG) if (base / CONFIG).is_file() else {}
        targets = config.get("targets", [])
        self.trainable = config.get("format") != LARGE_FORMAT
        name = str(meta.get("version", base.name))
        self.base = Version(name, 0, None, None, None, base, None, {**meta, "targets": targets})

    def check_trainable(self) -> None:
        """Raises `StoreError` where no round can train the kind of model that the server was started with."""
        if not self.trainable:
            raise StoreError(
                "Rounds train the embedded model, and a large preset is in charge here. Corrections are kept, and can be "
                "trained on by a server that is started with the embedded model on the same state folder."
            )

    def current(self) -> Version:
        """The version in charge. Where the one that was in charge was an earlier base checkpoint, today's is."""
        with self.database.session() as session:
            return self._current(session)

    def previous(self) -> Version | None:
        """The version that `rollback` would go back to: the whole one that was in charge before; None if there is none. It
        is asked for every few seconds, so files are hashed only where their sizes or times changed.
        """
        with self.database.session() as session:
            return self._before(session, anew=False)

    def get(self, name: str) -> Version:
        """The version of this name; raises `StoreError`."""
        with self.database.session() as session:
            return self._get(session, name)

    def versions(self) -> list[Version]:
        """All versions from the base on, in the order of their numbers."""
        with self.database.session() as session:
            rows = session.scalars(select(VersionRow).order_by(VersionRow.number)).all()
            return [self.base, *(self._version(row) for row in rows)]

    def of_round(self, round_id: int) -> Version | None:
        """The newest version that this round registered, so that a round that was interrupted need not do it again."""
        query = select(VersionRow).where(VersionRow.round_id == round_id).order_by(VersionRow.number.desc())
        with self.database.session() as session:
            row = session.scalars(query.limit(1)).first()
            return self._version(row) if row else None

    def charges(self, limit: int = 200) -> list[Charge]:
        """The newest changes of who is in charge, oldest first."""
        query = select(ChargeRow).order_by(ChargeRow.id.desc()).limit(limit)
        with self.database.session() as session:
            rows = session.scalars(query).all()
            return [Charge(r.version, r.action, r.editor, r.reason, r.created) for r in reversed(rows)]

    def ever_in_charge(self) -> list[Version]:
        """Every version that was in charge at some time, the base among them."""
        with self.database.session() as session:
            names = session.scalars(select(ChargeRow.version).distinct()).all()
            rows = session.scalars(select(VersionRow).where(VersionRow.name.in_(names))).all()
            return [self.base, *(self._version(row) for row in rows)]

    def register(
        self,
        work_dir: Path,
        parent: str,
        round_id: int | None,
        meta: dict[str, Any] | None = None,
        *,
        editor: str = SERVER,
    ) -> Version:
        """Make a version of a finished checkpoint directory, which is moved away; `meta` is kept with it. It is not in charge.

        Its `meta.json` gets the version's name as `version`, `parent`, `round`, and `learnt`: `meta` and the code's version, so
        that a copy of the directory says what it learnt from and how it was judged.
        """
        own = read_json(work_dir / META)
        hashes = file_hashes(work_dir)
        content = digest({name: hash_ for name, hash_ in hashes.items() if name != META})
        with FileLock(self.models / LOCK):
            known = self._clean()
            with self.database.session() as session:
                self._get(session, parent)
                number = (session.scalar(select(func.max(VersionRow.number))) or 0) + 1
            name = f"v{number:04d}-{content[:8]}"
            learnt = {**(meta or {}), "medsegr": __version__}
            write_meta(
                work_dir, {**own, "version": name, "parent": parent, "round": round_id, "learnt": learnt}
            )
            share(work_dir, {file: hash_ for file, hash_ in hashes.items() if file != META}, known)
            hashes = file_hashes(work_dir)
            targets = read_json(work_dir / CONFIG).get("targets", [])
            try:
                place(work_dir, self.models / name)
            except OSError as error:
                raise StoreError(
                    f"The version cannot be moved to {self.models} ({error.strerror}); room and a right to write are needed."
                ) from error
            with self.database.writing() as session:
                row = VersionRow(
                    number=number,
                    name=name,
                    parent=parent,
                    round_id=round_id,
                    created=now(),
                    directory=name,
                    sha256=digest(hashes),
                    meta={**(meta or {}), "targets": targets, "files": hashes},
                )
                session.add(row)
                session.flush()
                append(session, editor, "register", name, {"parent": parent, "sha256": row.sha256})
                return self._version(row)

    def verify(self, name: str) -> str | None:
        """Why this version cannot be used, in one sentence; None if every file, hashed now, is as it was registered."""
        return self._problem(self.get(name))

    def promote(
        self,
        name: str,
        editor: str,
        reason: str,
        *,
        expected: str | None = None,
        session: Session | None = None,
    ) -> Version:
        """Put a version in charge; nothing happens if it is already. Raises `StoreError` for one that is not whole, and where
        another than `expected` is in charge by now. Within `session`, whose owner commits, if one is given.
        """
        if problem := self.verify(name):
            raise StoreError(problem)
        with self.database.writing(session) as own:
            version, current = self._get(own, name), self._current(own)
            if expected is not None and current.name != expected:
                raise StoreError(
                    f"{current.name} is in charge by now, not {expected}; compare with it first."
                )
            if version.name != current.name:
                self._charge(own, version, PROMOTE, editor, reason)
            return version

    def rollback(self, editor: str, reason: str, *, expected: str | None = None) -> Version:
        """Put the version in charge that was before (the next whole one). Raises `StoreError` where there is none, and
        `ChargeChanged` where it is another than `expected`.
        """
        with self.database.writing() as session:
            version = self._before(session)
            if version is None:
                kind = StoreError if expected is None else ChargeChanged
                raise kind("No version was in charge before this one, so there is none to go back to.")
            if expected is not None and version.name != expected:
                raise ChargeChanged(f"{version.name} was in charge before, not {expected}; ask again.")
            self._charge(session, version, ROLLBACK, editor, reason)
            return version

    def settle(self) -> Version:
        """The version in charge if it is whole; else its nearest whole ancestor, which is then in charge. For the start."""
        current = self.current()
        problem = self._problem(current)
        return current if problem is None else self.fall_back(current.name, problem)

    def fall_back(self, name: str, reason: str) -> Version:
        """The version `name` cannot answer: if it is in charge, its nearest whole ancestor is from now on."""
        with self.database.writing() as session:
            current = self._current(session)
            if current.name != name or current.number == 0:
                return current
            version = current
            while version.number and (version is current or self._problem(version)):
                version = self._find(session, version.parent)
            logger.error("%s is not used: %s %s is in charge again.", name, reason, version.name)
            self._charge(session, version, FALLBACK, SERVER, reason)
            return version

    def _charge(self, session: Session, version: Version, action: str, editor: str, reason: str) -> None:
        session.add(
            ChargeRow(version=version.name, action=action, editor=editor, reason=reason, created=now())
        )
        session.flush()
        append(session, editor, action, version.name, {"reason": reason})

    def _current(self, session: Session) -> Version:
        return self._find(
            session, session.scalar(select(ChargeRow.version).order_by(ChargeRow.id.desc()).limit(1))
        )

    def _before(self, session: Session, *, anew: bool = True) -> Version | None:
        """The newest whole version below the top of the stack that the charges make."""
        stack = in_charge([(row.version, row.action) for row in session.scalars(_CHARGES)])
        current = self._current(session)
        for name in [*reversed(stack[:-1]), self.base.name]:
            version = self._find(session, name)
            if version.name != current.name and self._problem(version, anew) is None:
                return version
        return None

    def _get(self, session: Session, name: str) -> Version:
        version = self._find(session, name)
        if version.name != name:
            raise StoreError("No model version has this name; `GET /medsegr/models` lists those that exist.")
        return version

    def _find(self, session: Session, name: str | None) -> Version:
        """The version of this name; the base for every name that is not registered."""
        row = session.scalars(select(VersionRow).where(VersionRow.name == name)).first() if name else None
        return self._version(row) if row else self.base

    def _version(self, row: VersionRow) -> Version:
        return Version(
            row.name,
            row.number,
            row.parent,
            row.round_id,
            row.created,
            self.models / row.directory,
            row.sha256,
            row.meta,
        )

    def _problem(self, version: Version, anew: bool = True) -> str | None:
        if version.number == 0:
            return None  # its loader checks it
        files = version.meta.get("files", {})
        return self._verifier.problem(version.name, version.directory, version.sha256, files, anew=anew)

    def _clean(self) -> dict[tuple[str, str], Path]:
        """Remove what a registration that was killed left behind; returns the files of all versions by name and hash."""
        versions = self.versions()[1:]
        there = {version.directory.name for version in versions}
        for folder in self.models.iterdir():
            if folder.is_dir() and folder.name not in there:
                remove(folder)
        return {
            (name, hash_): version.directory / name
            for version in versions
            for name, hash_ in version.meta.get("files", {}).items()
        }


_CHARGES = select(ChargeRow).order_by(ChargeRow.id)


def in_charge(charges: Sequence[tuple[str, str]]) -> list[str]:
    """The stack of versions that a history of (version, action) leaves, the one in charge last: promoting puts one on top,
    going or falling back takes off whatever lies above the one named. The base is below the first.
    """
    stack: list[str] = []
    for version, action in charges:
        if action != PROMOTE:
            while stack and stack[-1] != version:
                stack.pop()
        if not stack or stack[-1] != version:
            stack.append(version)
    return stack
