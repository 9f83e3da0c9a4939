"""Searches over headers made by hand, against what PS3.4 C.2.2.2 says of each kind of matching."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from medsegr.dicom.headers import KEYS, Header
from medsegr.dicom.qido import Level, QueryError, matches, parse_query, search


def header(study: str, series: str, sop: str, **values: str) -> Header:
    known = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": sop, **values}
    return Header(Path(f"{sop}.dcm"), tuple(known.get(key, "") for key in KEYS))


ADA = {"PatientName": "Lovelace^Ada", "PatientID": "P-1", "StudyDate": "20240105", "StudyTime": "101500"}
BOB = {
    "PatientName": "Müller^Bob=ミュラー",
    "PatientID": "p2",
    "StudyDate": "20240310",
    "AccessionNumber": "A7",
}
HEADERS = (
    header("1.1", "1.1.1", "1.1.1.1", Modality="CT", SeriesNumber="2", InstanceNumber="1", Rows="64", **ADA),
    header("1.1", "1.1.1", "1.1.1.2", Modality="CT", SeriesNumber="2", InstanceNumber="2", Rows="64", **ADA),
    header("1.1", "1.1.2", "1.1.2.1", Modality="SEG", SeriesNumber="10", **ADA),
    header("1.2", "1.2.1", "1.2.1.1", Modality="MR", SeriesNumber="1", NumberOfFrames="7", **BOB),
    header("1.3", "1.3.1", "1.3.1.1", Modality="CR"),
)


def values(results: list[dict[str, Any]], tag: str) -> list[Any]:
    return [result[tag].get("Value", [None])[0] for result in results]


def studies(**parameters: str) -> list[str]:
    return values(search(Level.STUDY, HEADERS, parse_query(parameters.items()), (), "/w"), "0020000D")


def test_all_studies_come_newest_first_with_their_counts() -> None:
    found = search(Level.STUDY, HEADERS, parse_query([]), (), "/w")
    assert values(found, "0020000D") == ["1.2", "1.1", "1.3"]
    assert values(found, "00201206") == [1, 2, 1]
    assert values(found, "00201208") == [1, 3, 1]
    assert found[1]["00080061"] == {"vr": "CS", "Value": ["CT", "SEG"]}
    assert found[0]["00100010"]["Value"] == [{"Alphabetic": "Müller^Bob", "Ideographic": "ミュラー"}]
    assert found[2]["00100020"] == {"vr": "LO"}
    assert found[1]["00081190"]["Value"] == ["/w/studies/1.1"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"StudyInstanceUID": "1.1"}, ["1.1"]),
        ({"0020000D": "1.1,1.3"}, ["1.1", "1.3"]),
        ({"StudyInstanceUID": "1.1\\1.2"}, ["1.2", "1.1"]),
        ({"PatientID": "P-1"}, ["1.1"]),
        ({"PatientID": "P*"}, ["1.2", "1.1"]),
        ({"PatientID": "P?"}, ["1.2"]),
        ({"PatientID": ""}, ["1.2", "1.1", "1.3"]),
        ({"PatientID": "*"}, ["1.2", "1.1", "1.3"]),
        ({"PatientID": "P-[1]"}, []),
        ({"PatientName": "*ada*"}, ["1.1"]),
        ({"PatientName": "lovelace^ada"}, ["1.1"]),
        ({"PatientName": "Ada"}, []),
        ({"PatientName": "ad love", "fuzzymatching": "true"}, ["1.1"]),
        ({"PatientName": "müller", "fuzzymatching": "true"}, ["1.2"]),
        ({"ModalitiesInStudy": "SEG"}, ["1.1"]),
        ({"00080061": "MR,CR"}, ["1.2", "1.3"]),
        ({"ModalitiesInStudy": "ct"}, []),
        ({"Modality": "CT"}, ["1.1"]),
        ({"StudyDate": "20240105"}, ["1.1"]),
        ({"StudyDate": "20240101-20240201"}, ["1.1"]),
        ({"StudyDate": "20240105-20240310"}, ["1.2", "1.1"]),
        ({"StudyDate": "20240106-"}, ["1.2"]),
        ({"StudyDate": "-20240106"}, ["1.1"]),
        ({"StudyTime": "1000-1100"}, ["1.1"]),
        ({"AccessionNumber": "A7", "PatientID": "p2"}, ["1.2"]),
        ({"AccessionNumber": "A7", "PatientID": "P-1"}, []),
        ({"limit": "1"}, ["1.2"]),
        ({"limit": "1", "offset": "1"}, ["1.1"]),
        ({"offset": "2"}, ["1.3"]),
        ({"limit": "0"}, []),
        ({"includefield": "all"}, ["1.2", "1.1", "1.3"]),
    ],
)
def test_studies_are_matched(parameters: dict[str, str], expected: list[str]) -> None:
    assert studies(**parameters) == expected


def test_series_and_instances_say_where_they_belong() -> None:
    series = search(Level.SERIES, HEADERS[:3], parse_query([]), (), "/w")
    assert values(series, "0020000E") == ["1.1.1", "1.1.2"]  # by series number, 2 before 10
    assert values(series, "00201209") == [2, 1]
    assert values(series, "0020000D") == ["1.1", "1.1"]
    assert "00100010" not in series[0]
    everywhere = search(Level.SERIES, HEADERS, parse_query([("Modality", "MR")]), (Level.STUDY,), "/w")
    assert values(everywhere, "00100020") == ["p2"]
    instances = search(Level.INSTANCE, HEADERS[:2], parse_query([]), (), "/w")
    assert values(instances, "00200013") == [1, 2]
    assert values(instances, "00280010") == [64, 64]
    assert values(instances, "00081190")[0] == "/w/studies/1.1/series/1.1.1/instances/1.1.1.1"
    assert values(search(Level.INSTANCE, HEADERS[3:4], parse_query([]), (), ""), "00280008") == [7]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ([("limit", "-1")], "whole number"),
        ([("offset", "x")], "whole number"),
        ([("fuzzymatching", "yes")], "true or false"),
        ([("PatientNam", "x")], "no DICOM attribute"),
        ([("0010", "x")], "no DICOM attribute"),
    ],
)
def test_a_query_that_cannot_be_understood_is_refused(parameters: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(QueryError, match=words):
        parse_query(parameters)


def test_attributes_that_are_not_indexed_are_named() -> None:
    query = parse_query([("EchoTime", "3"), ("RequestAttributesSequence.00400009", "x"), ("PatientID", "p2")])
    assert query.unsearched == ("EchoTime", "RequestAttributesSequence.ScheduledProcedureStepID")
    assert query.matches == (("PatientID", "p2"),)


def test_integers_match_by_value_and_codes_by_letter() -> None:
    assert matches("IS", "012", "12")
    assert not matches("IS", "", "0")
    assert not matches("CS", "CT", "ct")
    assert matches("DA", "2024.01.05", "20240105")
    assert not matches("DA", "", "-20240105")


def test_a_pattern_of_many_stars_is_no_trap() -> None:
    began = time.monotonic()
    assert not matches("LO", "a" * 64, "*a" * 20 + "*b")
    assert matches("LO", "a" * 64 + "b", "*a" * 20 + "*b")
    assert time.monotonic() - began < 1.0
