"""How close an answer's words are to the reference answer: token F1, ROUGE-L (rouge-score) and BLEU (sacrebleu), all in [0,
1]."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU


def tokens(text: str) -> list[str]:
    """Words and numbers in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words counted with repetition (SQuAD, Rajpurkar et al. 2016; articles kept);
    two texts without words agree: 1."""
    said, expected = Counter(tokens(answer)), Counter(tokens(reference))
    if not said and not expected:
        return 1.0
    common = (said & expected).total()
    return 2.0 * common / (said.total() + expected.total())


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004), without stemming."""
    return float(_rouge().score(reference, answer)["rougeL"].fmeasure)


def bleu(answer: str, reference: str) -> float:
    """Sentence BLEU (Papineni et al. 2002) with sacrebleu's tokens, smoothing and effective order."""
    return float(_bleu(True).sentence_score(answer, [reference]).score) / 100.0


def corpus_bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of all answers together, the figure that papers report; NaN of nothing."""
    if not answers:
        return float("nan")
    return float(_bleu(False).corpus_score(list(answers), [list(references)]).score) / 100.0


@lru_cache(maxsize=1)
def _rouge() -> RougeScorer:
    return RougeScorer(["rougeL"])


@lru_cache(maxsize=2)
def _bleu(effective_order: bool) -> BLEU:
    return BLEU(effective_order=effective_order)
