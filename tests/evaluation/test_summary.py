"""The summary: every figure worked out by hand from the cases of a predictor whose masks are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from known_predictor import answer, conversation, knowledge, mask

from medsegr.evaluation.case import Case
from medsegr.evaluation.consistency import Agreement, agreements, reword
from medsegr.evaluation.summary import summarise


def test_summary_by_hand(root: Path) -> None:
    """Five images of a big set, one of a small one, one set that is named apart."""
    conversations = []
    for n in range(5):
        image = f"i{n}"
        conversations += [
            # liver: right on 3 of 5 images, missed on 1, the spleen instead on 1 -> mean Dice 0.6
            conversation(image, (("liver", "liver", "liver", "", "spleen|liver")[n], "liver", "explicit")),
            # spleen: always right, but on two images only -> too few cases to count
            *([conversation(image, ("spleen", "spleen", "explicit"))] if n < 2 else []),
            # by a fact: kidney found on 4 of 5, on two of these under another name
            conversation(
                image, (("kidney", "kidney|liver", "kidney|liver", "kidney", "")[n], "kidney", "implicit")
            ),
            # absent: kept quiet on 4 of 5
            conversation(
                image, (("", "", "", "", "spleen")[n], "", ("absent_same_set", "absent_elsewhere")[n % 2])
            ),
        ]
    small = conversation("s0", ("liver", "liver", "explicit"), dataset="small")
    summary = summarise(answer(root, *conversations, small), small_sets=5)
    assert summary["questions"] == 5 + 2 + 5 + 5 + 1
    assert summary["images"] == {"big": 5, "small": 1} and summary["patients"] == 6
    explicit, implicit = summary["explicit"], summary["implicit"]
    assert explicit["sets"] == {"big": pytest.approx(0.6)} and explicit["dice"] == pytest.approx(0.6)
    assert explicit["small_sets"] == {"small": 1.0} and explicit["questions"] == 8
    assert explicit["emission"] == explicit["t_acc"] == pytest.approx(7 / 8)
    assert explicit["named_right"] == pytest.approx(7 / 8), "the spleen under the liver's name is named right"
    # i0..i4 know liver and kidney, i0 and i1 the spleen as well; s0 has one target: no choice there
    assert explicit["chose_target_questions"] == 7
    assert explicit["chose_target"] == pytest.approx(5 / 7)
    assert 0.0 <= explicit["dice_low"] < 0.6 < explicit["dice_high"] <= 1.0
    assert implicit["dice"] == pytest.approx(0.8) and implicit["small_sets"] == {}
    assert implicit["named_right"] == pytest.approx(2 / 5) and implicit["chose_target"] == pytest.approx(
        4 / 5
    )
    assert summary["emission"] == pytest.approx(11 / 13)
    assert summary["n_acc"] == pytest.approx(4 / 5)
    assert summary["n_acc_same_set"] == pytest.approx(2 / 3) and summary["questions_absent_same_set"] == 3
    assert summary["n_acc_elsewhere"] == 1.0 and summary["questions_absent_elsewhere"] == 2

    overall = summary["overall"]["figures"]
    assert overall["dice"]["value"] == pytest.approx((3 + 2 + 4 + 1) / 13) and overall["dice"]["n"] == 13
    assert overall["giou"]["value"] == pytest.approx((10 + 4) / 18), (
        "a right silence counts 1, an invented mask 0"
    )
    # pixels: liver and spleen 40, kidney 32. Unions: 4 livers right 160, one missed 40, one elsewhere 80, two spleens 80,
    # four kidneys 128, one missed 32, one spleen invented 40
    assert overall["ciou"]["value"] == pytest.approx((160 + 80 + 128) / (160 + 40 + 80 + 80 + 128 + 32 + 40))
    assert overall["t_acc"]["value"] == pytest.approx(11 / 13)
    assert overall["n_acc"] == {**overall["n_acc"], "value": pytest.approx(4 / 5), "n": 5}
    assert overall["count"]["value"] == pytest.approx((11 + 4) / 18)
    assert overall["pr_70"]["value"] == pytest.approx(10 / 13)
    kinds = summary["by_kind"]
    assert {k: g["n"] for k, g in kinds.items()} == {
        "explicit": 8,
        "implicit, fact of training": 5,
        "absent in the same set, by name": 3,
        "absent elsewhere, by name": 2,
    }
    assert (
        "n_acc" not in kinds["explicit"]["figures"]
        and "dice" not in kinds["absent elsewhere, by name"]["figures"]
    )
    assert list(summary["by_set"]) == ["big", "small"] and list(summary["by_modality"]) == ["CT"]
    assert summary["by_target"]["liver"]["figures"]["dice"]["value"] == pytest.approx(4 / 6)
    assert math.isnan(summary["by_set"]["small"]["figures"]["dice"]["low"]), "one patient has no interval"


def test_confidence_against_dice(root: Path) -> None:
    """Confidence is always 0.8. Judged: right, wrong, an invented mask -> a third is right; two masks and silence are not
    judged."""
    cases = answer(
        root,
        conversation("i0", ("liver", "liver", "explicit")),
        conversation("i1", ("spleen|liver", "liver", "explicit")),
        conversation("i2", ("spleen", "", "absent_same_set")),
        conversation("i3", ("liver+spleen", "liver+spleen", "multi")),
        conversation("i4", ("", "liver", "explicit")),
    )
    calibration = summarise(cases)["calibration"]
    assert calibration["n"] == 3 and calibration["ece"] == pytest.approx(0.8 - 1 / 3)
    assert [b["n"] for b in calibration["bins"]] == [0] * 8 + [3, 0]


def test_held_out_facts_and_several_targets_have_their_own_rows(root: Path) -> None:
    fact = min(knowledge().held_out_ids)
    trained = knowledge()["liver"].training_facts[0].id
    made = []
    for n, identifier in enumerate((fact, trained)):
        c = conversation(f"i{n}", ("liver", "liver", "implicit"))
        made.append(replace(c, turns=(replace(c.turns[0], fact=identifier),)))
    cases = answer(root, *made, conversation("i2", ("liver+spleen", "liver+spleen", "multi")))
    assert [c.held_out for c in cases] == [True, False, False]
    kinds = summarise(cases)["by_kind"]
    assert list(kinds) == ["implicit, fact of training", "implicit, held-out fact", "multi-target"]
    assert list(summarise(cases)["by_target"]) == ["liver"], (
        "a question about two targets is no row of a target"
    )


def test_sets_named_apart_do_not_move_the_mean(root: Path) -> None:
    big = [conversation(f"i{n}", ("liver", "liver", "explicit")) for n in range(5)]
    odd = [conversation(f"i{n}", ("", "liver", "explicit"), dataset="odd") for n in range(5)]
    cases = answer(root, *big) + answer(root, *odd)
    assert summarise(cases)["explicit"]["dice"] == pytest.approx(0.5)
    apart = summarise(cases, apart=("odd",))["explicit"]
    assert apart["dice"] == 1.0 and apart["sets"] == {"big": 1.0} and apart["small_sets"] == {"odd": 0.0}


def test_follow_ups_count_for_emission_and_not_for_the_first_questions(root: Path) -> None:
    cases = answer(root, conversation("i0", ("liver", "liver", "explicit"), ("", "spleen", "explicit")))
    summary = summarise(cases, small_sets=1)
    assert summary["explicit"]["questions"] == 1 and summary["explicit"]["emission"] == 1.0
    assert summary["emission"] == 0.5
    turns = summary["by_turn"]
    assert {name: g["figures"]["dice"]["value"] for name, g in turns.items()} == {
        "turn 1": 1.0,
        "turn 2": 0.0,
    }


def test_three_structures_by_name_are_followed_turn_by_turn(root: Path) -> None:
    """Two conversations of three questions by name: right, half right and missed; right, right and missed."""
    liver, spleen, kidney = (((n, n, "explicit")) for n in ("liver", "spleen", "kidney"))
    half, missed = ("liver+spleen|liver+liver", "liver", "explicit"), ("", "kidney", "explicit")
    followed = answer(
        root, conversation("i0", spleen, half, missed), conversation("i1", liver, spleen, missed)
    )
    turns = summarise(followed)["follow_ups"]
    assert turns == {
        "turn 1": {"dice": 1.0, "n": 2},
        "turn 2": {"dice": pytest.approx((2 / 3 + 1) / 2), "n": 2},
        "turn 3": {"dice": 0.0, "n": 2},
    }
    others = answer(
        root,
        conversation("i2", liver, spleen),
        conversation("i3", kidney),
        conversation("i4", liver, ("liver", "liver", "why"), spleen),
        conversation("i5", liver, spleen, kidney, liver),
    )
    assert summarise([*followed, *others])["follow_ups"] == turns, "three by name, no more and no fewer"
    reworded = [replace(case, wording=2, dice=0.0) for case in followed[:3]]
    assert summarise([*followed, *reworded])["follow_ups"] == turns
    assert summarise(others)["follow_ups"] == {}


def test_abilities_have_their_own_rows_and_figures(root: Path) -> None:
    kinds = {
        "comparison": "comparison",
        "count": "count",
        "side": "side",
        "why": "reason asked for",
        "neighbour": "neighbour",
    }
    cases = answer(root, *(conversation(f"i{n}", ("liver", "liver", kind)) for n, kind in enumerate(kinds)))
    cases = [
        replace(c, measured=c.kind != "count") for c in cases if c.kind not in {"why", "neighbour"}
    ] + cases[3:]
    cases += [replace(cases[0], kind="all", measured=None, listed=listed) for listed in (0.5, 1.0)]
    found = summarise(cases)["by_kind"]
    assert list(found) == ["everything", *kinds.values()]
    right = {
        kind: group["figures"]["measured"]["value"]
        for kind, group in found.items()
        if "measured" in group["figures"]
    }
    assert right == {"comparison": 1.0, "count": 0.0, "side": 1.0}
    assert found["everything"]["figures"]["listed"]["value"] == pytest.approx(0.75)


def test_a_summary_of_nothing_is_nan() -> None:
    summary = summarise([])
    assert math.isnan(summary["n_acc"]) and math.isnan(summary["explicit"]["chose_target"])
    assert summary["overall"]["figures"] == {} and summary["by_kind"] == {}


def _worded(cases: list[Case], **changes: object) -> list[Case]:
    return [replace(c, question=f"wording {n}", **changes) for n, c in enumerate(cases)]  # type: ignore[arg-type]


def test_paraphrases_by_hand(root: Path) -> None:
    """Three wordings: liver, liver, liver and spleen -> pairs 1, 2/3, 2/3; nothing drawn agrees with nothing only."""
    drawn = {"a": mask("liver"), "b": mask("liver"), "c": mask("liver", "spleen")}
    (one,) = answer(root, conversation("i0", ("liver", "liver", "explicit")))
    three = _worded([replace(one, mask=name) for name in "abc"])
    silent = _worded([replace(one, image="i1", mask=""), replace(one, image="i1", mask="a")])
    quiet = _worded([replace(one, image="i2", mask="")] * 2)
    lone = [replace(one, image="i3", mask="a")]
    again = [replace(one, image="i4", mask="a")] * 2
    slices = [
        replace(one, image="v", mask=name, slice=f"2:{n}", question=name) for n, name in enumerate("ac")
    ]
    found = agreements([*three, *silent, *quiet, *lone, *again, *slices], drawn.__getitem__)
    assert [(a.wordings, a.dice) for a in found] == [
        (3, pytest.approx((1 + 2 / 3 + 2 / 3) / 3)),
        (2, 0.0),
        (2, 1.0),
    ]
    summary = summarise(three, agreements=found)
    assert summary["paraphrases"]["value"] == pytest.approx((7 / 9 + 1) / 3)
    assert summary["paraphrases"]["n"] == 3 and summary["paraphrases"]["wordings"] == 7


def test_other_wordings_move_nothing_but_the_paraphrases(root: Path) -> None:
    cases = answer(root, conversation("i0", ("liver", "liver", "explicit")))
    more = [*cases, replace(cases[0], wording=2, dice=0.0, question="other")]
    agreed = [Agreement(("big", "i0"), 2, 0.25)]
    one, two = summarise(cases, agreements=agreed), summarise(more, agreements=agreed)
    assert str(one) == str(two) and one["paraphrases"]["value"] == 0.25


def test_rewordings_are_new_words_for_the_same_question() -> None:
    known = knowledge()
    c = conversation("i0", ("Where is the liver?", "liver", "explicit"))
    found = reword(c, known, 3, seed=1)
    assert len({*found, "Where is the liver?"}) == 4 and all("liver" in q for q in found)
    assert reword(c, known, 3, seed=1) == found != reword(c, known, 3, seed=2)
    fact = known["liver"].held_out_facts[0]
    described = replace(c, turns=(replace(c.turns[0], kind="implicit", fact=fact.id),))
    assert all(fact.text in q and "liver" not in q for q in reword(described, known, 2, seed=1))
    assert reword(conversation("i0", ("x", "liver+spleen", "multi")), known, 2, seed=1) == ()
    assert reword(conversation("i0", ("x", "", "absent_same_set")), known, 2, seed=1) == ()
