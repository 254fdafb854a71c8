"""Contract 7: never early, never a spin, and a signal does not end the wait."""

from __future__ import annotations

import threading
import time

import pytest
from expectations import Pair, expect_events, signals

from pollers import POLLIN
from pollers.base import Capability, Poller

#: A wait that takes longer than this on top of its timeout is broken, however busy the machine.
GENEROUS = 5.0


def timed(poller: Poller, timeout: float | None) -> float:
    """How long a poll() that returns nothing takes (seconds)."""
    start = time.monotonic()
    events = poller.poll(timeout)
    elapsed = time.monotonic() - start
    assert events == []
    return elapsed


@pytest.fixture
def idle(poller: Poller, pair: Pair) -> Poller:
    """A poller that watches something which does not happen."""
    poller.register(pair[0].fileno(), POLLIN)
    poller.poll(0)
    return poller


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.5])
def test_zero_and_less_never_wait(idle: Poller, timeout: float) -> None:
    assert sum(timed(idle, timeout) for _ in range(50)) < GENEROUS


@pytest.mark.parametrize("timeout", [1e-9, 1e-4, 0.0004, 0.001, 0.0015, 0.002, 0.0101, 0.25])
def test_never_early(idle: Poller, timeout: float) -> None:
    for _ in range(1 if timeout > 0.1 else 10):
        assert timeout <= timed(idle, timeout) < timeout + GENEROUS


def test_never_early_with_nothing_registered(poller: Poller) -> None:
    for timeout in (0.0003, 0.003, 0.03):
        assert timeout <= timed(poller, timeout) < timeout + GENEROUS


def test_a_timeout_may_be_an_int(idle: Poller) -> None:
    assert 1 <= timed(idle, 1) < 1 + GENEROUS


@pytest.mark.parametrize("timeout", [0.0005, 0.3])
def test_never_a_spin(idle: Poller, timeout: float) -> None:
    """One poll() is one wait in the kernel, and costs no CPU time while it lasts."""
    waits = 1 if timeout > 0.1 else 100
    calls, polls, cpu = idle.counters.kernel_calls, idle.counters.polls, time.process_time()
    elapsed = sum(timed(idle, timeout) for _ in range(waits))
    assert idle.counters.polls - polls == waits
    assert idle.counters.kernel_calls - calls <= 2 * waits
    if timeout > 0.1:
        assert time.process_time() - cpu < elapsed / 2


def test_short_timeouts_are_not_rounded_up(idle: Poller) -> None:
    """SUBMILLISECOND, by the best of many: noise only ever adds."""
    best = min(timed(idle, 0.0002) for _ in range(100))
    if idle.capabilities & Capability.SUBMILLISECOND:
        assert 0.0002 <= best < 0.0009
    else:
        assert best >= 0.0009, "this adapter has SUBMILLISECOND and does not say so"


@pytest.mark.parametrize("timeout", [None, 3e6, 1e9, 1e12])
def test_long_timeouts_end_with_an_event(idle: Poller, pair: Pair, timeout: float | None) -> None:
    near, far = pair
    timer = threading.Timer(0.05, far.send, [b"x"])
    timer.start()
    try:
        assert dict(idle.poll(timeout))[near.fileno()] & POLLIN
    finally:
        timer.join()


def test_an_event_ends_the_wait(idle: Poller, pair: Pair) -> None:
    near, far = pair
    timer = threading.Timer(0.02, far.send, [b"x"])
    start = time.monotonic()
    timer.start()
    try:
        expect_events(idle, {near.fileno(): POLLIN})
    finally:
        timer.join()
    assert 0.02 <= time.monotonic() - start < GENEROUS


def test_what_is_ready_is_returned_at_once(idle: Poller, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    start = time.monotonic()
    assert dict(idle.poll(60))[near.fileno()] & POLLIN
    assert time.monotonic() - start < GENEROUS


def test_signals_do_not_end_the_wait(idle: Poller) -> None:
    """EINTR: what remains of the timeout is waited for, neither less nor all of it again."""
    arrived: list[None] = []
    polls = idle.counters.polls
    with signals(0.02, lambda: arrived.append(None)):
        elapsed = timed(idle, 0.3)
    assert len(arrived) >= 2
    assert 0.3 <= elapsed < 0.3 + GENEROUS
    assert idle.counters.polls - polls == 1


def test_signals_do_not_end_a_short_wait(idle: Poller) -> None:
    arrived: list[None] = []
    with signals(0.0005, lambda: arrived.append(None)):
        for _ in range(100):
            assert 0.0015 <= timed(idle, 0.0015) < GENEROUS
    assert arrived


def test_no_event_is_lost_in_a_storm_of_signals(idle: Poller, pair: Pair) -> None:
    near, far = pair
    with signals(0.0005, lambda: None):
        for _ in range(100):
            far.send(b"x")
            assert dict(idle.poll(10))[near.fileno()] & POLLIN
            assert near.recv(10) == b"x"


@pytest.mark.parametrize("timeout", [None, 60, 0.0019])
def test_a_handler_that_raises_ends_the_wait(
    idle: Poller, pair: Pair, timeout: float | None
) -> None:
    """And the poller goes on working."""

    class Interrupt(Exception):
        pass

    waiting: list[None] = []
    raised: list[None] = []

    def fail() -> None:
        if waiting and not raised:  # not before what is to be raised is expected
            raised.append(None)
            raise Interrupt

    near, far = pair

    def poll_for_ever() -> None:
        waiting.append(None)
        while True:
            idle.poll(timeout)

    with signals(0.01, fail), pytest.raises(Interrupt):
        poll_for_ever()
    far.send(b"x")
    expect_events(idle, {near.fileno(): POLLIN})
