"""poll() with arrays for an answer: the same as poll(), on every adapter."""

from __future__ import annotations

import time
from collections.abc import Callable

from expectations import Pair

from pollers.arrays import Arrays, from_events, poll_arrays
from pollers.base import POLLIN, POLLOUT, Poller


def pairs_of(arrays: Arrays) -> list[tuple[int, int]]:
    fds, bits = arrays
    return list(zip(fds.tolist(), bits.tolist(), strict=True))


def test_it_tells_what_poll_tells(poller: Poller, tcp_pairs: Callable[[], Pair]) -> None:
    poll = poll_arrays(poller)
    made = [tcp_pairs() for _ in range(20)]
    for i, (near, far) in enumerate(made):
        poller.register(near.fileno(), POLLIN if i % 2 else POLLOUT)
        if i % 4 == 1:
            far.send(b"x")
    expected = {near.fileno(): POLLOUT for near, _ in made[::2]}
    expected |= {near.fileno(): POLLIN for near, _ in made[1::4]}
    seen: dict[int, int] = {}
    deadline = time.monotonic() + 20
    while seen != expected and time.monotonic() < deadline:
        seen |= dict(pairs_of(poll(1, 100)))
    assert seen == expected
    assert dict(poller.poll(1, 100)).items() <= expected.items()


def test_its_arrays_are_the_callers(poller: Poller, tcp: Pair) -> None:
    """The next call does not write into them."""
    near, far = tcp
    poll = poll_arrays(poller)
    poller.register(near.fileno(), POLLIN)
    far.send(b"x")
    first = poll(20, 10)
    poller.modify(near.fileno(), POLLOUT)
    assert pairs_of(poll(20, 10)) == [(near.fileno(), POLLOUT)]
    assert pairs_of(first) == [(near.fileno(), POLLIN)]


def test_it_returns_at_most_as_many(poller: Poller, tcp_pairs: Callable[[], Pair]) -> None:
    poll = poll_arrays(poller)
    made = [tcp_pairs() for _ in range(6)]
    for near, _ in made:
        poller.register(near.fileno(), POLLOUT)
    seen: set[int] = set()
    for _ in range(6):
        events = pairs_of(poll(20, 2))
        assert 1 <= len(events) <= 2
        seen |= {fd for fd, _ in events}
    assert seen == {near.fileno() for near, _ in made}


def test_its_timeout_is_never_cut_short(poller: Poller, tcp: Pair) -> None:
    poll = poll_arrays(poller)
    poller.register(tcp[0].fileno(), POLLIN)
    for timeout in (0.0004, 0.05):
        begin = time.monotonic()
        assert pairs_of(poll(timeout, 10)) == []
        assert timeout <= time.monotonic() - begin < 5


def test_a_wake_ends_it_and_shows_as_nothing(poller: Poller, tcp: Pair) -> None:
    poll = poll_arrays(poller)
    near, far = tcp
    poller.register(near.fileno(), POLLIN)
    poller.wake()
    assert pairs_of(poll(20, 10)) == []
    far.send(b"x")
    poller.wake()
    seen = pairs_of(poll(20, 10)) or pairs_of(poll(20, 10))
    assert seen == [(near.fileno(), POLLIN)]


def test_it_is_counted(poller: Poller, tcp: Pair) -> None:
    near, far = tcp
    poller.register(near.fileno(), POLLIN)
    far.send(b"x")
    before = poller.counters.polls
    assert len(poll_arrays(poller)(20, 10)[0]) == 1
    assert poller.counters.polls == before + 1
    assert poller.counters.sizes[1] >= 1


def test_no_events_are_two_empty_arrays() -> None:
    assert pairs_of(from_events([])) == []
