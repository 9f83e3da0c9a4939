"""Agreement against a table worked out by hand."""

from __future__ import annotations

import pytest

from medsegr.qa.review.agreement import Agreement, agreements, counts
from medsegr.qa.review.entries import Entry, TurnText, Verdict

ACCEPT, EDIT, REJECT = Verdict
BEFORE = (TurnText("q", "a"),)


def said(
    reviewer: str, verdicts: str, blind: bool = True, before: tuple[TurnText, ...] = BEFORE
) -> list[Entry]:
    """One entry for each letter of `verdicts`, on q0, q1, …; a dot is no verdict."""
    kinds = {"a": ACCEPT, "e": EDIT, "r": REJECT}
    return [
        Entry("t", reviewer, f"q{n}", kinds[letter], before, BEFORE if letter == "e" else None, None, blind)
        for n, letter in enumerate(verdicts)
        if letter != "."
    ]


def test_kappa_of_a_table_worked_out_by_hand() -> None:
    """Bob: accept edit reject
    Ada: accept          4    1      1      6
         edit            0    1      0      1
         reject          1    0      2      3
                         5    2      3     10

    Observed 7/10. By chance 6*5/100 + 1*2/100 + 3*3/100 = 0.41. Kappa (0.7 - 0.41) / (1 - 0.41) = 29/59.
    """
    entries = said("Bob", "aaaaerearr") + said("Ada", "aaaaaaerrr") + said("Cid", "..........a")
    ada_bob, ada_cid, bob_cid = agreements(entries)
    assert (ada_bob.first, ada_bob.second, ada_bob.shared) == ("Ada", "Bob", 10)
    assert ada_bob.raw == pytest.approx(0.7)
    assert ada_bob.kappa == pytest.approx(29 / 59)
    assert ada_cid == Agreement("Ada", "Cid", 0, None, None)
    assert bob_cid.shared == 0
    assert counts(entries)["Ada"] == {ACCEPT: 6, EDIT: 1, REJECT: 3}


def test_worse_than_chance_is_negative() -> None:
    (pair,) = agreements(said("Ada", "ar") + said("Bob", "ra"))
    assert (pair.raw, pair.kappa) == (0.0, pytest.approx(-1.0))


def test_one_verdict_for_everything_leaves_kappa_undefined() -> None:
    (pair,) = agreements(said("Ada", "aaa") + said("Bob", "aaa"))
    assert (pair.shared, pair.raw, pair.kappa) == (3, 1.0, None)


def test_only_blind_verdicts_on_the_same_text_count() -> None:
    changed_mind = said("Ada", "aa") + said("Bob", "ra") + said("Bob", "a", blind=False)
    (pair,) = agreements(changed_mind)
    assert (pair.shared, pair.raw) == (2, 0.5)
    corrected_slip = said("Ada", "r") + said("Ada", "a") + said("Bob", "a")
    assert agreements(corrected_slip)[0].raw == 1.0
    other_text = said("Ada", "a") + said("Bob", "a", before=(TurnText("q", "b"),))
    assert agreements(other_text)[0].shared == 0
