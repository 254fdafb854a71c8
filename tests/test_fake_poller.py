"""The fake beyond the contract: its script, its record, and that it never waits."""

from __future__ import annotations

import pytest

from pollers import POLLERR, POLLHUP, POLLIN, POLLOUT
from pollers.fake import FakePoller, WouldBlock


def test_a_script_is_played_in_order() -> None:
    poller = FakePoller([[(3, POLLIN)], OSError("broken"), lambda: [(4, POLLOUT)], []])
    assert poller.poll(None) == [(3, POLLIN)]
    with pytest.raises(OSError, match="broken"):
        poller.poll(None)
    assert poller.poll(None) == [(4, POLLOUT)]
    assert poller.poll(None) == []
    with pytest.raises(WouldBlock):
        poller.poll(None)


def test_an_interrupt_is_raised_like_a_signal_handlers() -> None:
    with pytest.raises(KeyboardInterrupt):
        FakePoller([KeyboardInterrupt()]).poll(1)


def test_only_what_is_registered_and_ready_is_returned() -> None:
    poller = FakePoller()
    poller.register(3, POLLIN)
    poller.register(4, POLLIN)
    poller.set_ready(4, POLLOUT)
    poller.set_ready(5, POLLIN)
    assert poller.poll(0) == []
    poller.set_ready(3, POLLIN | POLLOUT)
    assert poller.poll(0) == poller.poll(0) == [(3, POLLIN)]
    poller.modify(3, POLLOUT)
    assert poller.poll(0) == [(3, POLLOUT)]
    poller.set_ready(3, 0)
    assert poller.poll(0) == []


def test_errors_and_hang_ups_come_unasked() -> None:
    poller = FakePoller()
    poller.register(3, POLLOUT)
    poller.set_ready(3, POLLIN | POLLHUP | POLLERR)
    assert poller.poll(0) == [(3, POLLHUP | POLLERR)]


def test_everyone_gets_a_turn() -> None:
    poller = FakePoller()
    for fd in range(7):
        poller.register(fd, POLLIN)
        poller.set_ready(fd, POLLIN)
    lap = [fd for _ in range(4) for fd, _ in poller.poll(0, max_events=2)]
    assert lap[:7] == list(range(7))
    assert lap[7] == 0


def test_a_oneshot_fires_once() -> None:
    poller = FakePoller()
    poller.register(3, POLLIN, oneshot=True)
    poller.set_ready(3, POLLIN | POLLHUP)
    assert poller.poll(0) == [(3, POLLIN | POLLHUP)]
    assert poller.poll(0) == []
    with pytest.raises(FileExistsError):
        poller.register(3, POLLIN)
    poller.modify(3, POLLIN, oneshot=True)
    assert poller.poll(0) == [(3, POLLIN | POLLHUP)]
    assert poller.poll(0) == []
    poller.modify(3, POLLIN)
    assert poller.poll(0) == poller.poll(0) == [(3, POLLIN | POLLHUP)]


def test_waits_are_recorded_not_waited() -> None:
    poller = FakePoller()
    assert poller.poll(3600) == []
    assert poller.poll(0.5) == []
    assert poller.poll(-1) == []
    assert poller.waited == 3600.5
    poller.wake()
    assert poller.poll(None) == []
    assert poller.waited == 3600.5


def test_calls_are_recorded_where_they_succeed() -> None:
    poller = FakePoller()
    poller.register(3, POLLIN)
    with pytest.raises(FileExistsError):
        poller.register(3, POLLIN)
    poller.modify(3, POLLOUT)
    poller.poll(0)
    poller.unregister(3)
    assert poller.calls == [
        ("register", 3, POLLIN),
        ("modify", 3, POLLOUT),
        ("poll", 0),
        ("unregister", 3),
    ]
