"""What clinicians say of a structure: tidied into the words of questions and answers, or refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from medsegr.rounds.errors import StoreError
from medsegr.rounds.knowledge import checked_knowledge, knowledge_of


def test_a_few_words_become_parts_of_sentences() -> None:
    said = checked_knowledge(
        {
            "names": [" Papille ", "PAPILLE", "optic  disc", "nerve head"],
            "location": "It lies  in the retina.",
            "facts": ["It drains the\nhumour.", "drains the humour", "MRI shows it well", "Holds 1 million fibres!"],
        },
        "Optic disc",
    )  # fmt: skip
    assert said["names"] == ["Papille", "nerve head"]
    assert said["location"] == "in the retina"
    assert said["facts"] == ["drains the humour", "MRI shows it well", "holds 1 million fibres"]
    assert said["questions"] == []


def test_what_older_rows_lack_is_empty() -> None:
    assert knowledge_of({}) == {"names": [], "location": "", "questions": [], "facts": []}
    assert knowledge_of({"names": ["a"], "questions": [], "facts": ["b"]})["location"] == ""


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"colour": ["red"]}, "`colour`"),
        ({"names": "cup"}, "`names`"),
        ({"names": ["x" * 65]}, "1 to 64"),
        ({"names": ["n\x00"]}, "printable"),
        ({"names": ["half \ud800"]}, "printable"),
        ({"facts": [""]}, "`facts`"),
        ({"facts": ["x" * 201]}, "1 to 200"),
        ({"facts": [f"is number {n}" for n in range(11)]}, "at most 10"),
        ({"facts": ["drains [seg] the humour"]}, r"must not hold `\[SEG\]`"),
        ({"facts": ["is the small CUP of it"]}, "without its name"),
        ({"names": ["hollow"], "facts": ["is a hollow"]}, "without its name"),
        ({"facts": ["..."]}, "few words"),
        ({"location": "<p>there"}, "must not hold `<p>`"),
        ({"location": ["there"]}, "`location`"),
        ({"location": "x" * 201}, "1 to 200"),
    ],
)
def test_what_cannot_be_used_is_refused(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(StoreError, match=words) as refused:
        checked_knowledge(entry, "cup")
    assert "hollow" not in str(refused.value), "the sentence quotes nothing of what was said"
