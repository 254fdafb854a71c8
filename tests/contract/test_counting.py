"""The counters of every adapter: polls, events, their histogram, kernel calls, wakes."""

from __future__ import annotations

from collections.abc import Callable

from expectations import Pair, expect_events

from pollers import POLLIN, POLLOUT
from pollers.base import Poller


def test_a_new_poller_has_done_nothing(any_poller: Poller) -> None:
    counters = any_poller.counters
    assert (counters.polls, counters.events, counters.rearms) == (0, 0, 0)
    assert (counters.stale, counters.wakes, counters.histogram()) == (0, 0, {})


def test_polls_and_events_are_counted(poller: Poller, tcp_pairs: Callable[[], Pair]) -> None:
    for _ in range(5):
        poller.register(tcp_pairs()[0].fileno(), POLLOUT)
    poller.poll(5)  # where registrations are made late, they are made now
    polls, events = poller.counters.polls, poller.counters.events
    returned = [len(poller.poll(5, max_events)) for max_events in (1, 2, 5, 100)]
    assert poller.counters.polls - polls == 4
    assert poller.counters.events - events == sum(returned)
    for n in set(returned):
        assert poller.counters.sizes[n] >= returned.count(n)


def test_a_batch_beyond_the_default_is_counted(
    poller: Poller, tcp_pairs: Callable[[], Pair]
) -> None:
    poller.counters.sizes = [0]
    poller.register(tcp_pairs()[0].fileno(), POLLOUT)
    poller.register(tcp_pairs()[0].fileno(), POLLOUT)
    while poller.counters.sizes[-1] == 0 or len(poller.counters.sizes) < 3:
        poller.poll(5)
    assert poller.counters.sizes[2] >= 1


def test_every_wait_is_a_kernel_call(poller: Poller, pair: Pair) -> None:
    poller.register(pair[0].fileno(), POLLIN)
    poller.poll(0)
    for _ in range(10):
        before = poller.counters.kernel_calls
        poller.poll(0.0005)
        assert 1 <= poller.counters.kernel_calls - before <= 2


def test_wakes_are_counted(poller: Poller) -> None:
    for _ in range(3):
        poller.wake()
    before = poller.counters.kernel_calls
    poller.poll(None)
    assert poller.counters.wakes == 3
    assert poller.counters.kernel_calls - before >= 1


def test_level_triggering_by_rearming_is_counted(poller: Poller, pair: Pair) -> None:
    """Only aio has to re-arm, and it has to for each event of what stays registered."""
    near, far = pair
    poller.register(near.fileno(), POLLIN)
    far.send(b"x")
    for _ in range(5):
        expect_events(poller, {near.fileno(): POLLIN})
    assert (poller.counters.rearms >= 4) == (poller.name == "aio")
    assert poller.counters.rearms == 0 or poller.name == "aio"
