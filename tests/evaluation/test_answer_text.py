"""Words of an answer: by hand, and against transcriptions of the definitions and NLTK's BLEU."""

from __future__ import annotations

import math

import pytest
from nltk.translate.bleu_score import corpus_bleu as nltk_corpus_bleu
from nltk.translate.bleu_score import sentence_bleu

from medsegr.evaluation.text import bleu, corpus_bleu, rouge_l, token_f1, tokens

PAIRS = [
    (
        "The liver lies in the upper right of the abdomen.",
        "The liver lies in the upper right of the abdomen , beneath it.",
    ),
    (
        "The spleen filters old red blood cells from the blood.",
        "The spleen filters worn red blood cells from the circulation.",
    ),
    (
        "A large gland that stores bile under the liver here.",
        "The gland that stores bile under the liver is seen here.",
    ),
]


def test_token_f1_by_hand() -> None:
    """Said: the, liver, is, here; expected: the, liver, stores, bile, the -> 2 common; F1 = 2 x 2 / (4 + 5)."""
    assert token_f1("The liver is here.", "the Liver stores bile, the") == pytest.approx(4 / 9)
    assert token_f1("same words", "Words, same!") == 1.0
    assert token_f1("", "") == 1.0 and token_f1("", "a word") == 0.0


def test_rouge_l_by_hand() -> None:
    """ "police killed the gunman" / "police kill the gunman" (Lin 2004): common police, the, gunman; P = R = 3/4."""
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(0.5)
    assert rouge_l("", "a word") == 0.0


def _longest_common(a: list[str], b: list[str]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@pytest.mark.parametrize(("answer", "reference"), PAIRS)
def test_rouge_l_agrees_with_the_definition(answer: str, reference: str) -> None:
    a, r = tokens(answer), tokens(reference)
    common = _longest_common(a, r)
    p, q = common / len(a), common / len(r)
    assert rouge_l(answer, reference) == pytest.approx(2 * p * q / (p + q), abs=1e-6)


def _spelt(text: str) -> list[str]:
    """sacrebleu's tokens of these sentences: the full stop stands alone."""
    return text.replace(".", " .").split()


@pytest.mark.parametrize(("answer", "reference"), PAIRS)
def test_bleu_agrees_with_nltk(answer: str, reference: str) -> None:
    assert bleu(answer, reference) == pytest.approx(
        sentence_bleu([_spelt(reference)], _spelt(answer)), abs=1e-6
    )


def test_bleu_of_all_answers_agrees_with_nltk() -> None:
    answers, references = zip(*PAIRS, strict=True)
    expected = nltk_corpus_bleu([[_spelt(r)] for r in references], [_spelt(a) for a in answers])
    assert corpus_bleu(answers, references) == pytest.approx(expected, abs=1e-6)
    assert math.isnan(corpus_bleu([], []))


def test_bleu_by_hand() -> None:
    """Four of four words right, the reference has five: only the brevity penalty exp(1 - 5/4) remains."""
    assert bleu("one two three four", "one two three four five") == pytest.approx(math.exp(-0.25), abs=1e-6)
    assert bleu("one two three four", "one two three four") == pytest.approx(1.0)
