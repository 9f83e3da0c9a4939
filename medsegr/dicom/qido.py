"""QIDO-RS over indexed headers (PS3.18 section 10.6): what a query asks for, which headers match, how results are written.

Pure functions of plain values; `medsegr.web.dicomweb` calls them with a folder's headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword

from medsegr.dicom.headers import INSTANCE_KEYS, PLACE, SERIES_KEYS, STUDY_KEYS, Header, whole_number
from medsegr.errors import MedSegRError

IGNORED = frozenset({"includefield", "accept", "charset"})
"""Parameters without effect: results always hold every attribute that is indexed."""
INTEGERS = frozenset({"IS", "US", "UL", "SS", "SL"})
TEXT = frozenset({"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Value representations that match without regard to upper and lower case; CS and UI match exactly."""
TIMES = frozenset({"DA", "TM", "DT"})
MODALITIES = "ModalitiesInStudy"


class QueryError(MedSegRError):
    """A query that cannot be understood."""


class Level(Enum):
    """What is searched for, with the attributes of a result."""

    STUDY = STUDY_KEYS
    SERIES = SERIES_KEYS
    INSTANCE = INSTANCE_KEYS


@dataclass(frozen=True)
class Query:
    """`matches` are (keyword of an indexed attribute, pattern); `unsearched` are attributes that are not indexed."""

    matches: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    offset: int = 0
    fuzzy: bool = False
    unsearched: tuple[str, ...] = ()


def parse_query(parameters: Iterable[tuple[str, str]]) -> Query:
    """A query out of URL parameters; attributes by keyword or by eight hexadecimal digits. Raises `QueryError`."""
    matches, unsearched, limit, offset, fuzzy = [], [], None, 0, False
    for name, value in parameters:
        if name == "limit":
            limit = _count(name, value)
        elif name == "offset":
            offset = _count(name, value)
        elif name == "fuzzymatching":
            if value.lower() not in {"true", "false"}:
                raise QueryError("`fuzzymatching` must be true or false.")
            fuzzy = value.lower() == "true"
        elif name not in IGNORED:
            key = _keyword(name)
            if key not in PLACE and key != MODALITIES:
                unsearched.append(key)
            elif value.strip("* "):  # an empty value and a lone star match everything
                matches.append((key, value))
    return Query(tuple(matches), limit, offset, fuzzy, tuple(unsearched))


def search(
    level: Level, headers: Iterable[Header], query: Query, upper: Sequence[Level], url: str
) -> list[dict[str, Any]]:
    """Results in the DICOM JSON model; newest study first, then by series and instance number.

    `headers` are all instances within the scope of the request, `upper` the levels whose attributes belong to each
    result as well, `url` the root of the retrieve URLs. A study or series matches by an attribute of a lower level if
    one of its instances does.
    """
    groups: dict[tuple[str, ...], list[Header]] = {}
    for header in headers:
        uids = (header.study, header.series, header.sop)[: _depth(level)]
        groups.setdefault(uids, []).append(header)
    found = [
        members for members in groups.values() if all(_matches(members, m, query) for m in query.matches)
    ]
    found.sort(key=lambda members: _order(members[0]))
    found = found[query.offset :] if query.limit is None else found[query.offset : query.offset + query.limit]
    return [_result(level, members, upper, url) for members in found]


def to_json(values: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """(keyword, value) pairs in the DICOM JSON model (PS3.18 annex F); several values are joined by a backslash."""
    return {
        f"{int(tag_for_keyword(key) or 0):08X}": _element(dictionary_VR(key), value) for key, value in values
    }


def matches(vr: str, value: str, pattern: str, *, fuzzy: bool = False) -> bool:
    """Whether one value of an attribute matches a pattern by the rules of its value representation (PS3.4 C.2.2.2)."""
    if vr == "UI":
        return value in re.split(r"[,\\]", pattern)
    if vr in TIMES:
        return _within(value, pattern)
    if vr in INTEGERS:
        return bool(value) and whole_number(value) == whole_number(pattern)
    if vr in TEXT:
        value, pattern = value.casefold(), pattern.casefold()
    if vr == "PN" and fuzzy and not set("*?") & set(pattern):
        words = [word for word in re.split(r"[\s^=,]+", value) if word]
        return all(any(word.startswith(p) for word in words) for p in re.split(r"[\s^=,]+", pattern) if p)
    return fnmatchcase(value, pattern.replace("[", "[[]"))  # many stars cost no more than one


def _matches(members: list[Header], match: tuple[str, str], query: Query) -> bool:
    key, pattern = match
    if key == MODALITIES:
        wanted = re.split(r"[,\\]", pattern)
        return any(matches("CS", header["Modality"], one) for header in members for one in wanted)
    vr = dictionary_VR(key)
    parts = {part for header in members for part in header[key].split("\\")}
    return any(matches(vr, part, pattern, fuzzy=query.fuzzy) for part in parts)


def _within(value: str, pattern: str) -> bool:
    """Dates and times: equal as far as the pattern goes, or within `first-last`, either of which may be missing."""
    value, pattern = re.sub("[.:]", "", value), re.sub("[.:]", "", pattern)
    if not value:
        return False
    if "-" not in pattern:
        return value.startswith(pattern)
    first, _, last = pattern.partition("-")
    return (not first or value[: len(first)] >= first) and (not last or value[: len(last)] <= last)


def _result(level: Level, members: list[Header], upper: Sequence[Level], url: str) -> dict[str, Any]:
    first = min(members, key=lambda header: header.number)
    keys = [key for one in (*upper, level) for key in one.value]
    result = to_json([(key, first[key]) for key in keys])
    address = f"{url}/studies/{first.study}"
    extra: dict[str, str] = {"InstanceAvailability": "ONLINE"}
    if level is Level.STUDY:
        extra |= {
            MODALITIES: "\\".join(sorted({header["Modality"] for header in members} - {""})),
            "NumberOfStudyRelatedSeries": str(len({header.series for header in members})),
            "NumberOfStudyRelatedInstances": str(len(members)),
        }
    else:
        result |= to_json([("StudyInstanceUID", first.study), ("SeriesInstanceUID", first.series)])
        address += f"/series/{first.series}"
        if level is Level.SERIES:
            extra["NumberOfSeriesRelatedInstances"] = str(len(members))
        else:
            address += f"/instances/{first.sop}"
    return dict(sorted((result | to_json([*extra.items(), ("RetrieveURL", address)])).items()))


def _element(vr: str, value: str) -> dict[str, Any]:
    if not value:
        return {"vr": vr}
    parts: list[Any] = value.split("\\") if vr not in {"UR", "LT", "ST", "UT"} else [value]
    if vr in INTEGERS:
        parts = [whole_number(part) for part in parts]
    elif vr == "PN":
        names = ("Alphabetic", "Ideographic", "Phonetic")
        parts = [{name: g for name, g in zip(names, part.split("="), strict=False) if g} for part in parts]
    return {"vr": vr, "Value": parts}


def _order(header: Header) -> tuple[Any, ...]:
    """Newest study first: each digit of date and time is turned around, and no date comes last."""
    newest = [-ord(letter) for letter in f"{header['StudyDate']:0<8}{header['StudyTime']:0<6}"[:14]]
    return (newest, header.study, whole_number(header["SeriesNumber"]), header.series, header.number)


def _depth(level: Level) -> int:
    return list(Level).index(level) + 1


def _count(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise QueryError(f"`{name}` must be a whole number, zero or more.")
    return int(value)


def _keyword(name: str) -> str:
    """The last attribute of a name such as `00100020`, `PatientID` or `RequestAttributesSequence.00400009`."""
    keys = []
    for part in name.split("."):
        tag = int(part, 16) if re.fullmatch("[0-9A-Fa-f]{8}", part) else tag_for_keyword(part)
        if tag is None or not (dictionary_has_tag(tag) or (tag >> 16) % 2):
            raise QueryError(
                "A query parameter is no DICOM attribute; its keyword or its eight digits are expected."
            )
        keys.append(keyword_for_tag(tag) or part)
    return ".".join(keys)
