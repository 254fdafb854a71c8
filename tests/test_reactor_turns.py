"""The turns of servers/reactor.py: what is put off to the end of one, what goes first in one."""

from __future__ import annotations

import contextlib
import os
import time

from pollers.base import POLLIN, Capability
from pollers.fake import FakePoller
from servers.reactor import Reactor


def test_soon_comes_after_the_batch_and_before_any_wait() -> None:
    log: list[str] = []
    poller = FakePoller([[(1, POLLIN), (2, POLLIN)]])
    reactor = Reactor(poller)

    def later() -> None:
        log.append("later")
        reactor.soon(last)

    def last() -> None:
        log.append("last")
        reactor.stop()

    def first(bits: int) -> None:
        log.append("first")
        reactor.soon(later)

    reactor.add(1, POLLIN, first)
    reactor.add(2, POLLIN, lambda bits: log.append("second"))
    reactor.run()
    assert log == ["first", "second", "later", "last"]
    # Not a moment was waited while something was put off.
    assert [call for call in poller.calls if call[0] == "poll"] == [("poll", None), ("poll", 0)]


def test_first_is_handled_before_the_others() -> None:
    """Also where the poller tells of it behind another, or has not told of it yet."""
    log: list[str] = []
    first, write_fd = os.pipe()
    other = first + 1000
    reactor = Reactor(FakePoller([[(other, POLLIN), (first, POLLIN)], [(other, POLLIN)]] * 2))
    os.set_blocking(first, False)

    def on_first(bits: int) -> None:
        with contextlib.suppress(BlockingIOError):
            log.append(os.read(first, 100).decode())

    def on_other(bits: int) -> None:
        log.append("other")
        if len(log) == 2:
            os.write(write_fd, b"news")
        if len(log) == 5:
            reactor.stop()

    try:
        reactor.add(other, POLLIN, on_other)
        reactor.add_first(first, on_first)
        os.write(write_fd, b"news")
        reactor.run()
    finally:
        os.close(first)
        os.close(write_fd)
    assert log == ["news", "other", "news", "other", "other"]


def test_edge_is_asked_of_the_poller() -> None:
    class Edgy(FakePoller):
        capabilities = Capability.EDGE
        asked: bool | None = None

        def register(
            self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False
        ) -> None:
            self.asked = edge
            super().register(fd, interest, edge=edge, oneshot=oneshot)

    poller = Edgy()
    Reactor(poller).add(1, POLLIN, lambda bits: None, edge=True)
    assert poller.asked is True


def test_longest_stall() -> None:
    """The longest time from a poll()'s return to the next, and no wait is part of it."""
    reactor = Reactor(FakePoller([[(1, POLLIN)], [(1, POLLIN)], [(1, POLLIN)]]))
    reactor.watch_stalls()
    turns = 0

    def busy(bits: int) -> None:
        nonlocal turns
        turns += 1
        until = time.monotonic() + (0.05 if turns == 2 else 0.0)
        while time.monotonic() < until:
            pass
        if turns == 3:
            reactor.stop()

    assert reactor.longest_stall == 0.0
    reactor.add(1, POLLIN, busy)
    reactor.run()
    assert 0.05 <= reactor.longest_stall < 5
