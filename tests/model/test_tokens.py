"""Markup tokens are single ids and survive a round trip."""

from __future__ import annotations

import pytest

from medsegr.model.tokens import SPECIAL, phrases, plain, train_tokenizer

ANSWER = "Visible here: <p>liver</p> [SEG] and the <p>left kidney</p> [SEG]."


def test_every_markup_token_is_one_id() -> None:
    tokenizer = train_tokenizer([ANSWER])
    assert [len(tokenizer.encode(t, add_special_tokens=False)) for t in SPECIAL] == [1] * len(SPECIAL)


def test_unseen_text_round_trips() -> None:
    tokenizer = train_tokenizer([ANSWER])
    text = "Ünseen <p>word</p> [SEG] 42; done."
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ANSWER, ["liver", "left kidney"]),
        ("No liver is visible.", []),
        ("[SEG] and <p>x</p> [SEG]", ["", "x"]),
        ("<p>a</p> b [SEG]", [""]),
    ],
)
def test_phrases_pair_with_seg_in_order(answer: str, expected: list[str]) -> None:
    assert phrases(answer) == expected


def test_plain_drops_markup_and_keeps_punctuation_tight() -> None:
    assert plain(ANSWER) == "Visible here: liver and the left kidney."
