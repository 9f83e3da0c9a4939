"""Which structures a text means: the longest name wins."""

import pytest

from medsegr.qa.facts import KnowledgeBase
from medsegr.qa.mentions import mentioned


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Outline the white blood cell nucleus.", ("white blood cell nucleus",)),
        (
            "Outline the white blood cell and the white blood cell nucleus.",
            ("white blood cell", "white blood cell nucleus"),
        ),
        ("Where is the brain tumour?", ("brain tumour",)),
        ("How many malignant breast tumours are there?", ("malignant breast tumour",)),
        ("Compare the left and the right kidney.", ("left kidney", "right kidney")),
        ("Is the left lung larger than the right one?", ("left lung", "right lung")),
        ("Outline the left kidney.", ("left kidney",)),
        ("Outline the liver beside the stomach.", ("liver", "stomach")),
        ("Which organ makes bile?", ()),
    ],
)
def test_the_longest_name_at_a_place_is_meant(
    knowledge: KnowledgeBase, text: str, names: tuple[str, ...]
) -> None:
    asked_about = (
        "white blood cell", "white blood cell nucleus", "brain tumour", "breast tumour", "malignant breast tumour",
        "left kidney", "right kidney", "left lung", "right lung", "liver", "stomach",
    )  # fmt: skip
    assert mentioned(text, [knowledge[name] for name in asked_about]) == names
