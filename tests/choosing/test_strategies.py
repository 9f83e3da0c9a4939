"""Every strategy chooses what its name says, tells why, and chooses at random while the model has seen nothing."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from medsegr.choosing.choice import Field
from medsegr.choosing.look import Look, bits
from medsegr.choosing.strategies import DEFAULT, DESCRIPTIONS, STRATEGIES, _ranks, mixture

IMAGES = ("a", "b", "c", "d", "e", "f")
SEEN = (("liver", 0.93), ("spleen", 0.61))


def field(looks: list[Look], known: tuple[str, ...] = (), seed: int = 0) -> Field:
    return Field(IMAGES, {look.image: look for look in looks}, known, random.Random(seed))


def chosen(strategy: str, looks: list[Look], times: int = 200, known: tuple[str, ...] = ()) -> Counter[str]:
    return Counter(STRATEGIES[strategy](field(looks, known, seed)).image for seed in range(times))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_looks_every_image_is_as_likely_and_the_reason_says_so(strategy: str) -> None:
    counts = chosen(strategy, [], 600)
    assert set(counts) == set(IMAGES) and min(counts.values()) > 60
    choice = STRATEGIES[strategy](field([]))
    assert choice.strategy == strategy and "at random among 6 images without a label" in choice.why
    assert ("has not looked" in choice.why) == (strategy != "random")


def test_names_and_descriptions_belong_together() -> None:
    assert list(DESCRIPTIONS) == list(STRATEGIES) and DEFAULT == "mixture"


def test_random_ignores_what_the_model_saw() -> None:
    looks = [Look("a", "v", seen=SEEN, entropy=9.0)]
    assert min(chosen("random", looks, 600).values()) > 60


def test_foreground_is_random_among_images_that_show_something() -> None:
    looks = [Look("a", "v"), Look("b", "v", seen=SEEN), Look("c", "v"), Look("d", "v", seen=(("cup", 0.4),))]
    counts = chosen("foreground", looks)
    assert set(counts) == {"b", "d"} and min(counts.values()) > 60
    why = {(c := STRATEGIES["foreground"](field(looks, seed=s))).image: c.why for s in range(20)}
    assert why["b"] == (
        "Chosen at random among the 2 of 6 images without a label in which the model sees something it knows; "
        "here liver (93%), spleen (61%)."
    )


def test_foreground_falls_back_where_nothing_is_seen() -> None:
    looks = [Look(image, "v") for image in IMAGES]
    assert set(chosen("foreground", looks)) == set(IMAGES)
    assert "sees nothing that it knows" in STRATEGIES["foreground"](field(looks)).why


def test_entropy_takes_the_most_open_image_and_names_the_doubt() -> None:
    looks = [
        Look("a", "v", entropy=0.4),
        Look("b", "v", entropy=3.24, doubted=("pancreas", 0.48)),
        Look("c", "v", entropy=1.0),
    ]
    choice = STRATEGIES["entropy"](field(looks))
    assert choice.image == "b" and choice.why == (
        "About 3.2 bits of the model's decisions about this image are open, most of all on pancreas (48%). "
        "It is the least sure of 3 of 6 images."
    )


def test_disagreement_takes_the_image_where_the_model_contradicts_itself() -> None:
    looks = [
        Look("a", "v", entropy=9.0, paraphrase=0.2, paraphrase_why="two ways overlap little"),
        Look("b", "v", mismatch=1.0, mismatch_why="liver was outlined and the answer does not name it"),
        Look("c", "v", entropy=3.0),
    ]
    choice = STRATEGIES["disagreement"](field(looks))
    assert choice.image == "b"
    assert choice.why.startswith(
        "Liver was outlined and the answer does not name it. It contradicts itself most"
    )


def test_disagreement_falls_back_on_entropy_among_equals() -> None:
    looks = [Look("a", "v", entropy=1.0), Look("b", "v", entropy=2.0)]
    choice = STRATEGIES["disagreement"](field(looks))
    assert choice.image == "b" and choice.why.startswith("The model contradicts itself on none")


def unsure(
    image: str, entropy: float, at: tuple[float, ...] = (), seen: bool = True, paraphrase: float = 0.0
) -> Look:
    return Look(image, "v", seen=SEEN if seen else (), entropy=entropy, embedding=at, paraphrase=paraphrase)


def test_mixture_is_the_least_sure_while_nothing_is_known() -> None:
    looks = [unsure("a", 1.0, (1.0, 0.0)), unsure("b", 2.0, (0.0, 1.0)), unsure("c", 0.5, (0.0, 1.0))]
    choice = mixture(field(looks))
    assert choice.image == "b" and "least sure of 3 of 6" in choice.why


def test_mixture_takes_from_the_least_sure_what_is_least_like_the_known() -> None:
    near, far = (1.0, 0.0), (0.0, 1.0)
    looks = [
        unsure("a", 6.0, near),
        unsure("b", 5.0, near),
        unsure("c", 4.0, far),  # the fourth of the pool of four, and the only one that is new
        unsure("d", 5.5, (0.8, 0.6)),
        unsure("e", 1.0, (-1.0, 0.0)),  # farther still, but sure
        unsure("f", 9.0, (-1.0, 0.0), seen=False),  # least sure of all, and shows nothing
        Look("old", "v", embedding=near),
    ]
    choice = mixture(field(looks, known=("old", "never looked at")))
    assert choice.image == "c"
    assert choice.why.endswith(
        "Of the 4 images it is least sure of, this one is least like the 1 seen before."
    )


def test_mixture_weighs_both_kinds_of_doubt_by_rank() -> None:
    """Entropy in bits may be a hundred times a disagreement; ranks keep either from deciding alone."""
    looks = [
        unsure("a", 100.0, paraphrase=0.0),
        unsure("b", 90.0, paraphrase=0.9),
        unsure("c", 1.0, paraphrase=0.95),
        unsure("d", 0.5, paraphrase=0.1),
    ]
    assert mixture(field(looks)).image == "b"


def test_bits_are_those_of_a_coin() -> None:
    assert bits(0.5) == 1.0 and bits(0.0) == bits(1.0) == bits(float("nan")) == 0.0
    assert bits(0.25) == pytest.approx(0.8112781) == bits(0.75)


def test_equals_share_a_rank() -> None:
    assert _ranks([3.0, 1.0, 3.0, 2.0, 3.0]).tolist() == [3.0, 0.0, 3.0, 1.0, 3.0]
