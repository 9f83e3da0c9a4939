"""Patients' hashes: the same for the same patient, different for others, and nothing without the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medsegr.rounds.errors import StoreError
from medsegr.rounds.patients import PatientKeys, read_patients_csv


def test_a_patient_has_one_key_on_one_server(tmp_path: Path) -> None:
    keys = PatientKeys(tmp_path)
    key, kind = keys.of("series-1", "PAT 7")
    assert kind == "dicom" and len(key) == 64 and "PAT" not in key
    assert PatientKeys(tmp_path).of("series-2", " PAT 7 ") == (key, "dicom")
    assert keys.of("series-1", "PAT 8")[0] != key
    (tmp_path / "other").mkdir()
    assert PatientKeys(tmp_path / "other").of("series-1", "PAT 7")[0] != key


def test_dicom_goes_before_the_list_and_the_list_before_the_image(tmp_path: Path) -> None:
    keys = PatientKeys(tmp_path)
    mapping = {"a": "p1", "b": "p1"}
    assert keys.of("a", "x", mapping)[1] == "dicom"
    assert keys.of("a", None, mapping) == keys.of("b", "  ", mapping)
    assert keys.of("a", None, mapping)[1] == "patients.csv"
    assert keys.of("c", None, mapping) != keys.of("d", None, mapping)
    assert keys.of("c", None, mapping)[1] == "image"
    names = {keys.of("p", "p")[0], keys.of("p", None, {"p": "p"})[0], keys.of("p")[0]}
    assert len(names) == 3  # a PatientID is no file name of the same spelling


def test_the_key_is_private_and_must_be_whole(tmp_path: Path) -> None:
    PatientKeys(tmp_path)
    file = tmp_path / "patient.key"
    assert file.stat().st_mode & 0o777 == 0o600 and os.listdir(tmp_path) == ["patient.key"]  # noqa: PTH208
    file.chmod(0o644)
    with pytest.raises(StoreError, match="mode 0644"):
        PatientKeys(tmp_path)
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(StoreError, match="restore it"):
        PatientKeys(tmp_path)


def test_a_list_of_patients_is_read(tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_text("\ufeffimage,sex,patient\r\na.png,f, p1 \r\n b ,m,p2\r\n", encoding="utf-8")
    assert read_patients_csv(file) == {"a.png": "p1", "b": "p2"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no column"),
        (b"image,subject\na,b\n", "no column"),
        (b"image,patient\na,\n", "line 2 lacks"),
        (b"image,patient\na\n", "line 2 lacks"),
        (b"image,patient\na,p1\nb,p1\na,p2\n", "line 4 gives an image a second"),
        (b"image,patient\n\xff\xfe,p\n", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "patients.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StoreError, match=words) as caught:
        read_patients_csv(file)
    assert "expected" in str(caught.value) and "p1" not in str(caught.value)
