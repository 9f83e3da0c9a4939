"""Warm-up, cosine, the time limit and the early end of a round."""

from __future__ import annotations

from medsegr.rounds.schedule import Schedule, ScheduleOptions


def _run(options: ScheduleOptions, losses: list[float]) -> tuple[list[float], Schedule]:
    schedule, rates = Schedule(options), []
    for step, loss in enumerate(losses):
        rate = schedule.rate(step, 0.0)
        if rate <= 0:
            break
        rates.append(rate)
        schedule.note(step, 0.0, loss)
    return rates, schedule


def test_the_rate_rises_and_falls_to_nothing() -> None:
    rates, schedule = _run(ScheduleOptions(100, 0.0, warmup=10, patience=0), [1.0] * 200)
    assert len(rates) == 100 and not schedule.cooling
    assert rates[0] < rates[5] < rates[9] > rates[50] > rates[99] > 0
    assert schedule.rate(100, 0.0) == 0


def test_time_ends_a_round_as_steps_do() -> None:
    schedule = Schedule(ScheduleOptions(1000, 2.0, warmup=1))
    assert schedule.rate(3, 0.0) > schedule.rate(3, 1.0) > schedule.rate(3, 1.99) > 0
    assert schedule.rate(3, 2.0) == 0


def test_a_round_that_learns_nothing_more_cools_down_and_ends() -> None:
    options = ScheduleOptions(1000, 0.0, warmup=1, patience=30, cooldown=10)
    falling = [1 / (1 + 0.1 * n) for n in range(60)]
    rates, schedule = _run(options, falling + [falling[-1]] * 500)
    assert schedule.cooling
    assert 60 + 30 + 10 <= len(rates) < 250
    tail = rates[-10:]
    assert all(a > b for a, b in zip(tail, tail[1:], strict=False)) and tail[-1] < 0.2 * rates[-12]


def test_one_that_goes_on_learning_goes_on() -> None:
    options = ScheduleOptions(300, 0.0, warmup=1, patience=30)
    rates, schedule = _run(options, [0.99**n for n in range(300)])
    assert len(rates) == 300 and not schedule.cooling


def test_a_step_without_a_loss_counts_for_nothing() -> None:
    schedule = Schedule(ScheduleOptions(100, 0.0, patience=2))
    for step in range(10):
        schedule.note(step, 0.0, None)
        schedule.note(step, 0.0, float("nan"))
    assert not schedule.plateau
