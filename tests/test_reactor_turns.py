"""The turns of servers/reactor.py: what is put off to the end of one, what goes first in one."""

from __future__ import annotations

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


def test_first_is_handled_before_the_others_of_its_batch() -> None:
    log: list[str] = []
    reactor = Reactor(FakePoller([[(2, POLLIN), (1, POLLIN)], [(2, POLLIN)]]))

    def others(bits: int) -> None:
        log.append("other")
        if len(log) > 2:
            reactor.stop()

    reactor.add(2, POLLIN, others)
    reactor.add_first(1, lambda bits: log.append("first"))
    reactor.run()
    assert log[0] == "first"
    assert log[1:] == ["other", "first", "other"]  # in its place again, where it finds nothing


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
