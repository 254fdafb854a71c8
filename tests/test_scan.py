"""poll and select: what they keep of one kernel call, what they drop of it, and more facts."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pollers import INTEREST, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDHUP
from pollers.poll import PollPoller, from_native, to_native
from pollers.scan import ScanAdapter
from pollers.select import SelectPoller

Sockets = list[tuple[socket.socket, socket.socket]]


@pytest.fixture(params=[PollPoller, SelectPoller], ids=["poll", "select"])
def poller(request: pytest.FixtureRequest) -> Iterator[ScanAdapter]:
    with request.param() as poller:
        yield poller


@pytest.fixture
def ready(poller: ScanAdapter) -> Iterator[Sockets]:
    """Ten readable sockets, registered."""
    with ExitStack() as stack:
        sockets = [socket.socketpair() for _ in range(10)]
        for near, far in sockets:
            stack.enter_context(near)
            stack.enter_context(far)
            far.send(b"x")
            poller.register(near.fileno(), POLLIN)
        yield sockets


def kernel_calls(poller: ScanAdapter, action: Callable[[], object]) -> int:
    before = poller.counters.kernel_calls
    action()
    return poller.counters.kernel_calls - before


def test_one_kernel_call_serves_all_that_were_ready(poller: ScanAdapter, ready: Sockets) -> None:
    seen: list[int] = []

    def lap() -> None:
        for _ in range(4):
            seen.extend(fd for fd, _ in poller.poll(5, max_events=3))

    assert kernel_calls(poller, lap) == 1
    assert sorted(seen) == sorted(near.fileno() for near, _ in ready)
    assert kernel_calls(poller, lap) == 1


def test_what_is_kept_is_returned_without_waiting(poller: ScanAdapter, ready: Sockets) -> None:
    poller.poll(5, max_events=9)
    for near, _ in ready:
        near.recv(1)
    assert len(poller.poll(60)) == 1  # true when the kernel was asked
    assert poller.poll(0) == []


def test_unregistered_and_modified_fds_are_dropped_from_the_rest(
    poller: ScanAdapter, ready: Sockets
) -> None:
    (first,) = (fd for fd, _ in poller.poll(5, max_events=1))
    waiting = [near.fileno() for near, _ in ready if near.fileno() != first]
    for near, _ in ready:
        near.recv(1)
    gone, changed, anew, *kept = waiting
    poller.unregister(gone)
    poller.modify(changed, POLLIN)
    poller.unregister(anew)
    poller.register(anew, POLLIN)
    events = []

    def rest() -> None:
        for _ in range(3):
            events.extend(poller.poll(0, max_events=2))

    assert kernel_calls(poller, rest) == 0
    assert sorted(events) == sorted((fd, POLLIN) for fd in kept)
    assert poller.poll(0) == []
    assert poller.counters.stale == 3


def test_a_rest_without_anything_left_is_not_an_empty_return(
    poller: ScanAdapter, ready: Sockets
) -> None:
    """The kernel is asked again, and waits: what is dropped must not look like a timeout."""
    (first,) = (fd for fd, _ in poller.poll(5, max_events=1))
    for near, _ in ready:
        if near.fileno() != first:
            poller.unregister(near.fileno())
    assert poller.poll(60) == [(first, POLLIN)]


def test_a_wake_is_spent_on_a_return_from_the_rest(poller: ScanAdapter, ready: Sockets) -> None:
    poller.poll(5, max_events=5)
    poller.wake()
    assert len(poller.poll(5)) == 5
    for near, _ in ready:
        near.recv(1)
    assert poller.poll(0) == []
    assert not poller._wakeup.pending


def test_a_number_reused_under_a_registration_is_watched_on(poller: ScanAdapter) -> None:
    """These know numbers only; see the portability chapter in pollers.base."""
    (near, far), (other, other_far) = socket.socketpair(), socket.socketpair()
    with near, far, other, other_far:
        fd = near.fileno()
        poller.register(fd, POLLIN)
        os.dup2(other.fileno(), fd)
        with pytest.raises(FileExistsError):
            poller.register(fd, POLLIN)
        other_far.send(b"x")
        assert poller.poll(5) == [(fd, POLLIN)]


def test_every_closed_fd_is_reported_once(poller: ScanAdapter, ready: Sockets) -> None:
    for near, _ in ready[3:]:
        near.recv(1)
    numbers = [near.fileno() for near, _ in ready]
    for near, _ in ready[:3]:
        near.close()
    assert dict(poller.poll(5)) == dict.fromkeys(numbers[:3], POLLNVAL)
    assert poller.poll(0) == []
    for fd in numbers[:3]:
        with pytest.raises(FileNotFoundError):
            poller.unregister(fd)


def test_a_closed_fd_reported_in_several_batches(poller: ScanAdapter, ready: Sockets) -> None:
    """Its registration has gone at once, so a new one may begin before the report is out."""
    numbers = [near.fileno() for near, _ in ready]
    for near, _ in ready:
        near.close()
    assert len(poller.poll(5, max_events=1)) == 1
    with socket.socket() as fresh:
        assert fresh.fileno() in numbers
        poller.register(fresh.fileno(), POLLRDHUP | POLLIN)
        rest = [fd for _ in range(9) for fd, bits in poller.poll(0, max_events=1)]
        assert len(rest) in (8, 9)
        poller.unregister(fresh.fileno())


def test_select_returns_urgent_data_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, SelectPoller() as poller:
        near = socket.create_connection(listener.getsockname())
        far = listener.accept()[0]
        with near, far:
            poller.register(near.fileno(), POLLIN | POLLOUT | POLLPRI)
            far.send(b"a!", socket.MSG_OOB)
            seen = 0
            while seen != POLLIN | POLLOUT | POLLPRI:
                ((fd, bits),) = poller.poll(5)
                assert fd == near.fileno()
                seen |= bits


@given(st.integers(1, INTEREST).filter(lambda bits: not bits & ~INTEREST))
def test_interests_in_the_bits_of_each_system(interest: int) -> None:
    assert to_native(interest, POLLRDHUP) == interest  # Linux
    freebsd = to_native(interest, 0x4000)
    assert bool(freebsd & 0x4000) == bool(interest & POLLRDHUP)
    assert not freebsd & POLLRDHUP  # POLLINIGNEOF there
    assert from_native([(3, freebsd)], 0x4000) == [(3, interest)]
    macos = to_native(interest, 0)
    assert macos
    assert not macos & POLLRDHUP
    assert (macos ^ interest) & ~(POLLRDHUP | POLLIN) == 0


def test_ready_bits_in_the_contracts_own() -> None:
    events = [(3, POLLIN | 0x4000), (4, POLLOUT | POLLHUP)]
    assert from_native(events, 0x4000) == [(3, POLLIN | POLLRDHUP), (4, POLLOUT | POLLHUP)]
    assert from_native(events, POLLRDHUP) is events


def test_the_contracts_bits_are_this_systems() -> None:
    for name, value in {"POLLIN": 1, "POLLPRI": 2, "POLLOUT": 4, "POLLHUP": 16}.items():
        assert getattr(select, name) == value
