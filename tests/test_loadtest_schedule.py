"""The arithmetic of a swarm: which slots, when, how steady, how fair."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest._schedule import (
    WINDOWS,
    Schedule,
    Steadiness,
    active_slots,
    fairness,
    parse_active,
    slope,
)

RATES = st.floats(0.1, 1e6, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "connections", "active"),
    [("100%", 10_000, 10_000), ("1%", 10_000, 100), ("1%", 50, 1), ("0", 9, 0), (" 7 ", 9, 7)],
)
def test_active_is_a_percentage_or_a_number(text: str, connections: int, active: int) -> None:
    assert parse_active(text, connections) == active


@pytest.mark.parametrize("text", ["", "many", "-1", "11", "101%", "nan%", "-5%", "1.5"])
def test_active_beyond_the_connections_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="not a part of 10 connections") as caught:
        parse_active(text, 10)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 20_000), st.data())
def test_active_slots_are_distinct_and_spread_evenly(
    connections: int, data: st.DataObject
) -> None:
    active = data.draw(st.integers(1, connections))
    slots = active_slots(connections, active)
    assert len(set(slots)) == active
    assert 0 <= slots[0] <= slots[-1] < connections
    gaps = {b - a for a, b in zip(slots, [*slots[1:], slots[0] + connections], strict=True)}
    assert max(gaps) - min(gaps) <= 1


@given(RATES, st.integers(1, 500), st.lists(st.integers(0, 10**9), max_size=20))
def test_every_message_is_due_once_at_its_time_and_in_order(
    rate: float, slots: int, steps: list[int]
) -> None:
    start = 1_000_000_000
    schedule = Schedule(rate, slots, start)
    now, announced = start - 5, 0
    for step in steps:
        now += step
        due = schedule.due(now)
        assert due.start == announced
        announced = due.stop
        if due:
            assert schedule.time(due.stop - 1) <= now
        assert schedule.time(announced) > now
    assert schedule.wait(now) > 0
    assert schedule.wait(schedule.time(announced)) == 0


@given(RATES, st.integers(1, 500), st.integers(0, 10_000))
def test_a_slots_turns_are_the_messages_that_fall_on_it(rate: float, slots: int, n: int) -> None:
    schedule = Schedule(rate, slots, 0)
    turn, slot = divmod(n, slots)
    assert schedule.intended(slot, turn) == schedule.time(n)


def test_a_schedule_needs_a_rate_and_a_slot() -> None:
    for rate, slots in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="above 0"):
            Schedule(rate, slots, 0)


def test_slope_is_that_of_the_line() -> None:
    assert slope([3, 5, 7, 9]) == pytest.approx(2)
    assert slope([4, 4, 4]) == 0


def test_steady_is_said_of_a_level_throughput_and_of_none_at_all() -> None:
    for level in (50_000.0, 0.0):
        steadiness = Steadiness()
        assert [steadiness.add(level) for _ in range(WINDOWS)] == [False] * (WINDOWS - 1) + [True]


def test_steady_is_not_said_of_a_rising_or_falling_throughput() -> None:
    for step in (1000.0, -1000.0):
        steadiness = Steadiness()
        assert not any(steadiness.add(30_000 + i * step) for i in range(20))


def test_noise_without_a_slope_is_steady() -> None:
    steadiness = Steadiness()
    noise = [100, 130, 70, 100, 100, 70, 130, 100]
    assert [steadiness.add(value) for value in noise][-1]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=200))
def test_jains_index_is_between_one_over_n_and_one(served: list[int]) -> None:
    result = fairness(served)
    assert 1 / len(served) - 1e-9 <= result["jain"] <= 1 + 1e-9
    assert result["min"] <= result["median"] <= result["max"]


def test_fairness_of_extremes() -> None:
    assert fairness([7, 7, 7, 7]) == {"min": 7, "median": 7, "max": 7, "jain": 1.0}
    assert fairness([12, 0, 0])["jain"] == pytest.approx(1 / 3)
    assert fairness([])["jain"] == 1.0
