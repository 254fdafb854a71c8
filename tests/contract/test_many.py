"""Contract 6: thousands of fds, and fairness when more are ready than fit."""

from __future__ import annotations

import errno
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from expectations import expect_events

import pollers
from pollers import POLLIN, POLLOUT
from pollers.base import Poller

#: Adapters that cannot name an fd of 1024 or more.
FD_SETSIZE = {"select": 1024}


@contextmanager
def pipes(count: int) -> Iterator[list[tuple[int, int]]]:
    """`count` pipes: (reader, writer)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = 2 * count + 100
    if hard < needed:
        pytest.skip(f"needs {needed} open files, the limit is {hard}: ulimit -Hn {needed}")
    made: list[tuple[int, int]] = []
    try:
        made.extend(os.pipe() for _ in range(count))
        yield made
    finally:
        for reader, writer in made:
            os.close(reader)
            os.close(writer)


def most(adapter: str, wanted: int) -> int:
    """As many pipes as the adapter can watch the readers of, up to `wanted`."""
    return min(wanted, (FD_SETSIZE.get(adapter, 1 << 30) - 100) // 2)


def test_more_than_1024_fds(poller: Poller, adapter: str) -> None:
    """3,000 registered and some ready: exactly those are returned, the last ones too."""
    if adapter in FD_SETSIZE:
        pytest.skip("select has fds below 1024 only; see test_select_refuses_what_it_cannot_name")
    with pipes(3000) as made:
        for reader, _ in made:
            poller.register(reader, POLLIN)
        assert poller.poll(0) == []
        ready = made[::100] + made[-1:]
        for _, writer in ready:
            os.write(writer, b"x")
        readers = {reader for reader, _ in ready}
        assert max(readers) > 1024
        expect_events(poller, dict.fromkeys(readers, POLLIN))
        for _ in range(2):
            assert {fd for fd, _ in poller.poll(5)} == readers
        for reader, _ in made:
            poller.unregister(reader)
        assert poller.poll(0) == []


def test_900_fds(poller: Poller) -> None:
    """What every adapter can do, select too."""
    with pipes(450) as made:
        for reader, writer in made:
            poller.register(reader, POLLIN)
            poller.register(writer, POLLOUT)
        expect_events(poller, {writer: POLLOUT for _, writer in made})
        for _, writer in made:
            poller.unregister(writer)
            os.write(writer, b"x")
        expect_events(poller, {reader: POLLIN for reader, _ in made})


def test_select_refuses_what_it_cannot_name(poller: Poller, adapter: str) -> None:
    """Those with a largest fd refuse the next in one clear line, and go on with the others."""
    with pipes(600) as made:
        reader, writer = made[-1]
        assert reader >= 1024
        os.write(writer, b"x")
        if adapter not in FD_SETSIZE:
            poller.register(reader, POLLIN)
            expect_events(poller, {reader: POLLIN})
            return
        with pytest.raises(OSError, match=f"cannot watch fd {reader}.*use poll") as caught:
            poller.register(reader, POLLIN)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(FileNotFoundError):
            poller.unregister(reader)
        os.write(made[0][1], b"x")
        poller.register(made[0][0], POLLIN)
        expect_events(poller, {made[0][0]: POLLIN})


def test_select_is_unavailable_without_a_small_fd(
    make: Callable[[], Poller], adapter: str
) -> None:
    with pipes(600):
        if adapter in FD_SETSIZE:
            with pytest.raises(pollers.Unavailable, match="cannot watch fd"):
                make()
        else:
            make().poll(0)


@pytest.mark.parametrize("max_events", [1, 64, 1000])
def test_all_that_are_ready_get_their_turn(poller: Poller, adapter: str, max_events: int) -> None:
    """5,000 ready at once, nobody reads: in each lap every fd comes once, give or take a round."""
    count = most(adapter, 5000 if max_events > 1 else 500)
    with pipes(count) as made:
        for reader, writer in made:
            os.write(writer, b"x")
            poller.register(reader, POLLIN)
        seen: Counter[int] = Counter()
        laps = 3
        rounds = 0
        while len(seen) < count or min(seen.values()) < laps:
            events = poller.poll(5, max_events)
            assert 1 <= len(events) <= max_events
            fds = [fd for fd, _ in events]
            assert len(set(fds)) == len(fds)
            seen.update(fds)
            rounds += 1
            # One lap ahead for being in a round that began the next lap, one for the round taken.
            behind = min(seen.values()) if len(seen) == count else 0
            assert max(seen.values()) <= behind + 2
            assert rounds <= 2 * laps * (count // max_events + 1)
        assert set(seen) == {reader for reader, _ in made}


def test_reading_what_is_returned_drains_all(poller: Poller, adapter: str) -> None:
    """As a server does: each event is answered at once, and then nothing is left."""
    count = most(adapter, 5000)
    with pipes(count) as made:
        for reader, writer in made:
            os.write(writer, b"x")
            poller.register(reader, POLLIN)
        left = {reader for reader, _ in made}
        spurious = 0
        while left:
            events = poller.poll(5, max_events=128)
            assert events
            for fd, _ in events:
                if fd in left:
                    assert os.read(fd, 10) == b"x"
                    left.discard(fd)
                else:
                    spurious += 1
        assert spurious <= 128
        assert [event for _ in range(2) for event in poller.poll(0)] == []


def test_busy_fds_do_not_starve_the_others(poller: Poller, adapter: str) -> None:
    """Some are answered and ready again at once, always; the quiet ones still come through."""
    count = most(adapter, 400)
    with pipes(count) as made:
        writers = dict(made)
        for reader, writer in made:
            os.write(writer, b"x")
            poller.register(reader, POLLIN)
        busy = {reader for reader, _ in made[: count // 2]}
        quiet = {reader for reader, _ in made[count // 2 :]}
        rounds = 0
        while quiet:
            for fd, _ in poller.poll(5, max_events=16):
                if fd in busy:
                    os.read(fd, 1)
                    os.write(writers[fd], b"x")
                elif fd in quiet:
                    os.read(fd, 1)
                    quiet.discard(fd)
            rounds += 1
            assert rounds < 4 * count
