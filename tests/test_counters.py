"""Counters without a poller: the histogram, and what is printed."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pollers.base import MAX_EVENTS, Counters


def test_buckets_are_powers_of_two() -> None:
    counters = Counters()
    for events in (0, 0, 1, 2, 3, 4, 5, 8, 9, 512):
        counters.count(events)
    assert counters.histogram() == {0: 2, 1: 1, 2: 1, 4: 2, 8: 2, 16: 1, 512: 1}
    assert (counters.polls, counters.events) == (10, 544)


@given(st.lists(st.integers(0, 4 * MAX_EVENTS)))
def test_nothing_is_lost_in_the_histogram(batches: list[int]) -> None:
    counters = Counters()
    for events in batches:
        counters.count(events)
    assert counters.polls == len(batches)
    assert counters.events == sum(batches)
    histogram = counters.histogram()
    assert sum(histogram.values()) == len(batches)
    for bound, polls in histogram.items():
        low = bound // 2 if bound > 1 else bound - 1
        assert polls == sum(low < events <= bound for events in batches)


def test_counters_are_json() -> None:
    counters = Counters()
    counters.count(3)
    counters.kernel_calls = 7
    assert json.loads(json.dumps(counters.as_dict())) == {
        "polls": 1,
        "events": 3,
        "kernel_calls": 7,
        "rearms": 0,
        "stale": 0,
        "wakes": 0,
        "events_per_wakeup": {"4": 1},
    }
