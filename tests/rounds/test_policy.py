"""The policy: when a round is due, and what options it understands."""

from __future__ import annotations

from datetime import datetime

import pytest

from medsegr.rounds.policy import OPTIONS, Policy, PolicyError, due


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-04T{clock}:00")


def test_without_options_rounds_start_by_hand() -> None:
    policy = Policy.from_options({})
    assert policy == Policy(0, None, 30.0, "auto", 1)
    assert due(policy, 10_000, at("03:00")) is None


def test_every_option_is_read() -> None:
    values = ("20", "22:30-04:00", "12.5", "cuda:1", "2")
    read = Policy.from_options({**dict(zip(OPTIONS, values, strict=True)), "device": "cpu"})
    assert read == Policy(20, "22:30-04:00", 12.5, "cuda:1", 2)
    assert Policy.from_options({"device": "cpu"}).device == "cpu"  # as the server's, unless said otherwise
    assert Policy.from_options({"train_night": "off"}).night is None


def test_enough_corrections_start_a_round() -> None:
    policy = Policy(after_corrections=5)
    assert due(policy, 4, at("12:00")) is None
    reason = due(policy, 5, at("12:00"))
    assert reason == "5 corrections since the last round; 5 start one."


@pytest.mark.parametrize(
    ("night", "inside", "outside"),
    [
        ("02:00-05:00", ["02:00", "04:59"], ["01:59", "05:00", "14:00"]),
        ("22:30-04:00", ["22:30", "23:59", "00:00", "03:59"], ["22:29", "04:00", "12:00"]),
    ],
)
def test_at_night_any_correction_starts_a_round(night: str, inside: list[str], outside: list[str]) -> None:
    policy = Policy(night=night)
    for clock in inside:
        reason = due(policy, 1, at(clock))
        assert reason and night in reason
        assert due(policy, 0, at(clock)) is None
    assert [due(policy, 9, at(clock)) for clock in outside] == [None] * len(outside)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("train_after", "-1"),
        ("train_after", "many"),
        ("train_night", "2-5"),
        ("train_night", "02:00-02:00"),
        ("train_night", "24:00-05:00"),
        ("train_minutes", "0"),
        ("train_minutes", "soon"),
        ("train_minutes", "nan"),
        ("train_device", "gpu"),
        ("train_processes", "0"),
        ("train_processes", "1.5"),
    ],
)
def test_bad_values_are_one_sentence(option: str, value: str) -> None:
    with pytest.raises(PolicyError, match=f"`{option}`") as caught:
        Policy.from_options({option: value})
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
