"""Contract 9: wake() ends a wait, from anywhere, and shows as nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from expectations import Pair, expect_events, signals

from pollers import POLLIN, POLLOUT
from pollers.base import Poller

GENEROUS = 5.0


@contextmanager
def running(*targets: Callable[[], object]) -> Iterator[None]:
    """Threads that run meanwhile, and are joined."""
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


@contextmanager
def many_thread_switches() -> Iterator[None]:
    """Has the interpreter switch threads, and run handlers, at many more awkward places."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def test_a_wake_before_the_poll(any_poller: Poller) -> None:
    any_poller.wake()
    assert any_poller.poll(None) == []


def test_a_wake_is_used_up(poller: Poller) -> None:
    poller.wake()
    assert poller.poll(None) == []
    start = time.monotonic()
    assert poller.poll(0.05) == []
    assert time.monotonic() - start >= 0.05


def test_many_wakes_are_one(any_poller: Poller) -> None:
    for _ in range(100):
        any_poller.wake()
    assert any_poller.poll(None) == []
    assert any_poller.counters.wakes == 100
    assert any_poller.poll(0.001) == []


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_wake_from_a_thread(poller: Poller, pair: Pair, timeout: float | None) -> None:
    poller.register(pair[0].fileno(), POLLIN)
    poller.poll(0)

    def later() -> None:
        # poll() waits by then, most likely; nothing portable tells, and it must hold if not, too.
        time.sleep(0.02)
        poller.wake()

    start = time.monotonic()
    with running(later):
        assert poller.poll(timeout) == []
    assert time.monotonic() - start < GENEROUS


def test_a_wake_and_events(poller: Poller, pair: Pair) -> None:
    """The events come with the wake or after it, and never the wake's own fd."""
    near, far = pair
    poller.register(near.fileno(), POLLIN)
    far.send(b"x")
    seen = set()
    for _ in range(20):
        poller.wake()
        seen |= {fd for fd, _ in poller.poll(None)}
    assert seen <= {near.fileno()}
    expect_events(poller, {near.fileno(): POLLIN})


def test_a_wake_among_more_than_fit(poller: Poller, tcp_pairs: Callable[[], Pair]) -> None:
    """With max_events of 1, neither the wake nor any fd waits for ever."""
    fds = set()
    for _ in range(10):
        near, _ = tcp_pairs()
        poller.register(near.fileno(), POLLOUT)
        fds.add(near.fileno())
    poller.wake()
    seen = [fd for _ in range(30) for fd, _ in poller.poll(5, max_events=1)]
    assert set(seen) == fds
    for fd in fds:
        poller.unregister(fd)
    start = time.monotonic()
    events = [event for _ in range(2) for event in poller.poll(0.05, max_events=1)]
    assert events == []
    assert time.monotonic() - start >= 0.05  # at most one return was left over


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_wake_from_a_signal_handler(poller: Poller, timeout: float | None) -> None:
    """The handler runs inside poll(), which otherwise would go on waiting."""
    start = time.monotonic()
    with signals(0.02, poller.wake):
        assert poller.poll(timeout) == []
    assert time.monotonic() - start < GENEROUS


def test_a_handler_may_interrupt_a_wake(poller: Poller) -> None:
    """wake() is interrupted by handlers that call wake(), time and again: no deadlock."""
    with many_thread_switches(), signals(0.0002, poller.wake):
        for _ in range(3000):
            poller.wake()
            assert poller.poll(10) == []


def test_no_wake_is_lost_between_threads(poller: Poller) -> None:
    """Each of many requests is handed over with a wake; a lost one would hang the poll(None)."""
    requests: list[int] = []
    total, senders = 2000, 4

    def send(first: int) -> None:
        for n in range(first, total, senders):
            requests.append(n)
            poller.wake()

    taken: list[int] = []
    tasks = [lambda first=first: send(first) for first in range(senders)]
    with many_thread_switches(), running(*tasks):
        while len(taken) < total:
            assert poller.poll(None) == []
            while requests:
                taken.append(requests.pop())
    assert sorted(taken) == list(range(total))


def test_a_wake_costs_the_system_no_more_than_one_fd(poller: Poller) -> None:
    """The pending flag coalesces before the kernel does: a full pipe must not block wake()."""
    for _ in range(100_000):
        poller.wake()
    assert poller.poll(None) == []
