"""A case and its row: what is read back equals what was written, and a row is one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from known_predictor import answer, conversation

from medsegr.errors import MedSegRError
from medsegr.evaluation.case import COLUMNS, from_row
from medsegr.evaluation.journal import Journal


def test_rows_come_back_as_cases(root: Path) -> None:
    cases = answer(
        root,
        conversation("i0", ("liver", "liver", "explicit"), spacing_mm=(0.7, 0.3)),
        conversation("i0", ("spleen|liver", "liver", "explicit"), ("", "", "absent_elsewhere")),
    )
    odd = replace(
        cases[0], answer='a "b", c;\u2028d\r\n  e', dice=0.1 + 0.2, chose=None, reason=False, hd95=None
    )
    journal = Journal(root / "rows.csv", [("x", 1)])
    assert journal.recover() == 0
    journal.append([*cases, odd])
    assert journal.read() == [*cases, replace(odd, answer='a "b", c; d e')]
    assert len((root / "rows.csv").read_bytes().splitlines()) == 1 + 4


def test_a_row_that_is_no_case_is_named(root: Path) -> None:
    (case,) = answer(root, conversation("i0", ("liver", "liver", "explicit")))
    journal = Journal(root / "rows.csv", [])
    journal.recover()
    journal.append([case])
    path = root / "rows.csv"
    path.write_text(path.read_text().replace(",True,", ",maybe,"))
    with pytest.raises(MedSegRError, match="rows.csv:2 is not a row"):
        journal.read()
    with pytest.raises(KeyError):
        from_row(dict.fromkeys(COLUMNS[:-1], "1"))
