"""The knowledge base: what is known about every structure that can be asked for, read from YAML.

The builder turns its facts into questions and answers; the checks use its give-away words. It is text only
and makes no claim about any one image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from medsegr.errors import MedSegRError

KNOWLEDGE = Path(__file__).parent / "knowledge"
MORE = KNOWLEDGE / "more"
"""Further facts about concepts of `KNOWLEDGE`, in lists by kind; see `read_more_facts`."""
MORE_SOURCE = "general medical and dental textbooks"
REGIONS = (
    "abdomen",
    "brain",
    "breast",
    "cells",
    "chest",
    "eye",
    "fetus",
    "foot",
    "heart",
    "jaw",
    "limb",
    "skin",
    "spine",
    "bone",
    "bowel",
    "neck",
    "pelvis",
)
FACT_KINDS = (
    "function",
    "location",
    "disease",
    "treatment",
    "appearance",
    "lay",
    "confusion",
    "number",
    "neighbour",
)


@dataclass(frozen=True)
class Fact:
    """A verb phrase that completes "Which structure here ...?" and identifies its structure within the
    region.

    `held_out` facts are never used for training: they measure whether the model understands a sentence it has
    not seen.
    """

    id: str
    kind: str
    text: str
    source: str
    held_out: bool

    @property
    def only_asked(self) -> bool:
        """Whether the fact is to be understood in a question and not said in an answer: those from `MORE`, and what is known of
        diseases and treatment, which would read like something that was found in this image."""
        return ".more." in self.id or self.kind in {"disease", "treatment"}


@dataclass(frozen=True)
class Code:
    """A coded concept: the coding scheme (SCT for SNOMED CT), the code value and its meaning in words."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Concept:
    """One structure: its name, the words that give it away, where it lies, its left and right parts, its
    facts, its coded concept (None where the dictionaries have none)."""

    name: str
    synonyms: tuple[str, ...]
    plural: bool
    region: str
    location: str
    parts: Mapping[str, str]
    facts: tuple[Fact, ...]
    code: Code | None = None

    @property
    def training_facts(self) -> tuple[Fact, ...]:
        """Facts that training may use."""
        return tuple(fact for fact in self.facts if not fact.held_out)

    @property
    def held_out_facts(self) -> tuple[Fact, ...]:
        """Facts that are kept for evaluation."""
        return tuple(fact for fact in self.facts if fact.held_out)

    @property
    def give_away(self) -> tuple[str, ...]:
        """Words that an implicit question must not contain: the name and every synonym."""
        return (self.name, *self.synonyms)

    @cached_property
    def _give_away_pattern(self) -> re.Pattern[str]:
        words = sorted(self.give_away, key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?:e?s)?(?!\w)", re.IGNORECASE)

    def leak(self, text: str) -> str | None:
        """The first give-away word in `text` (whole words, also with a plural s), or None."""
        found = self._give_away_pattern.search(text)
        return found.group(0) if found else None

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where give-away words stand in `text`: first character and the one after the last."""
        return [found.span() for found in self._give_away_pattern.finditer(text)]


@dataclass(frozen=True)
class KnowledgeBase:
    """All concepts by name, in file order."""

    concepts: Mapping[str, Concept]
    _by_word: dict[str, tuple[Concept, ...]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        """Index concepts by name and synonym."""
        for concept in self.concepts.values():
            for word in {w.lower() for w in concept.give_away}:
                self._by_word[word] = (*self._by_word.get(word, ()), concept)

    def __getitem__(self, name: str) -> Concept:
        """The concept of exactly this name; raises `MedSegRError` if there is none."""
        if name not in self.concepts:
            raise MedSegRError(
                f"The knowledge base has no entry '{name}'; add one to a YAML file given with --knowledge."
            )
        return self.concepts[name]

    def __contains__(self, name: object) -> bool:
        """Whether a concept of exactly this name exists."""
        return name in self.concepts

    def find(self, word: str) -> tuple[Concept, ...]:
        """Concepts with this name or synonym, whatever the case; a name beats a synonym; empty if nothing is
        known."""
        found = self._by_word.get(word.strip().lower(), ())
        named = tuple(c for c in found if c.name.lower() == word.strip().lower())
        return named or found

    @cached_property
    def held_out_ids(self) -> frozenset[str]:
        """Ids of the facts that training must not use."""
        return frozenset(fact.id for concept in self.concepts.values() for fact in concept.held_out_facts)

    def require(self, names: Iterable[str]) -> None:
        """Raise one `MedSegRError` that lists every name without an entry."""
        missing = sorted({name for name in names if name not in self.concepts})
        if missing:
            raise MedSegRError(
                f"The knowledge base lacks {len(missing)} of the targets: {', '.join(missing)}; expected "
                "an entry for each."
            )


def load_knowledge(extra: Path | None = None) -> KnowledgeBase:
    """The shipped knowledge base, which is read once in a process, with the entries of `extra` (a YAML file or a folder of them)
    added or put in their place."""
    if extra is None:
        return _shipped()
    found = sorted(extra.glob("*.yaml")) if extra.is_dir() else [extra]
    if not found or not found[0].is_file():
        raise MedSegRError(f"{extra} holds no knowledge base; expected a YAML file or a folder of them.")
    return _read([*sorted(KNOWLEDGE.glob("*.yaml")), *found])


@cache
def _shipped() -> KnowledgeBase:
    """Reading its YAML takes more than a second."""
    return _read(sorted(KNOWLEDGE.glob("*.yaml")))


def _read(files: Iterable[Path]) -> KnowledgeBase:
    concepts: dict[str, Concept] = {}
    origin: dict[str, Path] = {}
    for path in files:
        for concept in read_knowledge(path):
            earlier = origin.get(concept.name)
            if earlier is not None and (earlier.parent == path.parent or earlier == path):
                raise MedSegRError(
                    f"{path.name} describes '{concept.name}' again ({earlier.name} does already); "
                    "expected one entry."
                )
            concepts[concept.name], origin[concept.name] = concept, path
    for path in sorted(MORE.glob("*.yaml")):
        for name, facts in read_more_facts(path).items():
            if origin.get(name, KNOWLEDGE).parent == KNOWLEDGE:  # a replaced entry stands as it is
                concepts[name] = replace(concepts[name], facts=(*concepts[name].facts, *facts))
    return KnowledgeBase(MappingProxyType(concepts))


SITE = "knowledge.yaml"
"""What a site told about structures that this knowledge base lacks, beside the weights that learnt them."""


def plain_concept(name: str, synonyms: Iterable[str] = (), location: str = "") -> Concept:
    """A structure of which little more than its names is known."""
    plural = name.endswith("s") and not name.endswith(("us", "as", "is", "ss"))
    others = tuple(dict.fromkeys(s for s in synonyms if s != name))
    return Concept(name, others, plural, "", location, {}, ())


def site_concepts(directory: Path) -> dict[str, Concept]:
    """Concepts of the `knowledge.yaml` in a checkpoint's directory, by name; none where there is no such file."""
    path = directory / SITE
    if not path.is_file():
        return {}
    rows = [_row(entry, path.name) for entry in _entries(path)]
    return {
        _text(row, "name", path.name): plain_concept(
            _text(row, "name", path.name),
            map(str, row.get("synonyms") or ()),
            str(row.get("location") or ""),
        )
        for row in rows
    }


def write_site_concepts(directory: Path, concepts: Iterable[Concept]) -> None:
    """Add concepts to the `knowledge.yaml` of a checkpoint's directory."""
    known = {**site_concepts(directory), **{c.name: c for c in concepts}}
    rows = [{"name": c.name, "synonyms": list(c.synonyms), "location": c.location} for c in known.values()]
    (directory / SITE).write_text(yaml.safe_dump(rows, allow_unicode=True, sort_keys=False), encoding="utf-8")


def read_more_facts(path: Path) -> dict[str, tuple[Fact, ...]]:
    """Facts by the name of their concept: entries of `about`, `facts` and `held_out`, the latter two lists of texts by kind; ids
    are `name.more.1` and so on. Raises `MedSegRError` naming the file and the entry that is wrong."""
    found: dict[str, tuple[Fact, ...]] = {}
    for number, entry in enumerate(_entries(path), start=1):
        where = f"{path.name}, entry {number}"
        row = _row(entry, where)
        name = _text(row, "about", where)
        facts: list[Fact] = []
        for key in ("facts", "held_out"):
            for kind, texts in _row(row.get(key, {}), f"{where}, {key}").items():
                if kind not in FACT_KINDS or not isinstance(texts, list):
                    raise MedSegRError(
                        f"{where}, {key}: '{kind}' is no list of facts of one kind; expected {', '.join(FACT_KINDS)}."
                    )
                for text in texts:
                    identifier = f"{name.replace(' ', '_')}.more.{len(facts) + 1}"
                    words = _text({"text": text}, "text", where).rstrip(".")
                    facts.append(Fact(identifier, kind, words, MORE_SOURCE, key == "held_out"))
        found[name] = tuple(facts)
    return found


def read_knowledge(path: Path) -> list[Concept]:
    """Concepts of one YAML file; raises `MedSegRError` naming the file and the entry that is wrong."""
    return [_concept(entry, f"{path.name}, entry {n}") for n, entry in enumerate(_entries(path), start=1)]


def _entries(path: Path) -> list[object]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MedSegRError(
            f"{path} cannot be read as a knowledge base: {' '.join(str(error).split())}."
        ) from error
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise MedSegRError(f"{path} holds a {type(entries).__name__}; expected a list of entries.")
    return entries


def _concept(entry: object, where: str) -> Concept:
    row = _row(entry, where)
    name = _text(row, "name", where)
    where = f"{where} ({name})"
    region = _text(row, "region", where)
    if region not in REGIONS:
        raise MedSegRError(f"{where}: region is '{region}'; expected one of {', '.join(REGIONS)}.")
    plural = row.get("plural", False)
    synonyms = row.get("synonyms") or []
    parts = row.get("parts") or {}
    facts = row.get("facts")
    if not isinstance(plural, bool) or not isinstance(synonyms, list) or not isinstance(parts, dict):
        raise MedSegRError(
            f"{where}: expected plural as true or false, synonyms as a list and parts as a mapping."
        )
    if not isinstance(facts, list) or not facts:
        raise MedSegRError(f"{where} has no facts; expected a list of them.")
    return Concept(
        name=name,
        synonyms=tuple(str(s) for s in synonyms),
        plural=plural,
        region=region,
        location=_text(row, "location", where),
        parts={str(k): str(v) for k, v in parts.items()},
        facts=tuple(_fact(fact, f"{where}, fact {n}") for n, fact in enumerate(facts, start=1)),
        code=_code(row["code"], f"{where}, code") if "code" in row else None,
    )


def _code(entry: object, where: str) -> Code:
    row = _row(entry, where)
    if unknown := sorted(str(key) for key in row.keys() - {"scheme", "value", "meaning"}):
        raise MedSegRError(
            f"{where} has the keys {', '.join(unknown)}; expected scheme, value and meaning only."
        )
    return Code(_text(row, "scheme", where), _text(row, "value", where), _text(row, "meaning", where))


def _fact(entry: object, where: str) -> Fact:
    row = _row(entry, where)
    kind, held_out = _text(row, "kind", where), row.get("held_out", False)
    if kind not in FACT_KINDS:
        raise MedSegRError(f"{where}: kind is '{kind}'; expected one of {', '.join(FACT_KINDS)}.")
    if not isinstance(held_out, bool):
        raise MedSegRError(f"{where}: held_out is {held_out!r}; expected true or false.")
    return Fact(
        _text(row, "id", where),
        kind,
        _text(row, "text", where).rstrip("."),
        _text(row, "source", where),
        held_out,
    )


def _row(entry: object, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise MedSegRError(f"{where} is {type(entry).__name__}; expected a mapping.")
    return entry


def _text(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise MedSegRError(f"{where}: '{key}' is {value!r}; expected text.")
    return " ".join(value.split())
