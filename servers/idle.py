"""Idle timeouts for every loop, at the price of one attribute store a read.

A connection counts the bytes that it `received`, which the counters need anyway (where they come
in batches, see servers.echo.reactor_batch).  A sweep runs four times a timeout and counts the
sweeps that found the same number: after four, nothing came for at least the timeout and at most
1.25 times as long.  (A connection that is new or gets rid of bytes sets `quiet` to -1 itself: the
next sweep is less than a quarter away and must not count.)  No timer per connection, no clock on
the hot path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final, Protocol, TypeVar

SWEEPS: Final = 4


class Idler(Protocol):
    received: int
    seen: int
    quiet: int


T = TypeVar("T", bound=Idler)

#: Where a connection counts all that it receives.
RECEIVED: Final[Callable[[Idler], int]] = attrgetter("received")


def sweep(connections: Iterable[T], progress: Callable[[T], int] = RECEIVED) -> list[T]:
    """Advance every connection by one sweep; return those that have been idle too long.

    `progress` of one that was not idle is another number than it was: the bytes received, where
    the connection itself counts them all.
    """
    expired = []
    for connection in connections:
        now = progress(connection)
        if now != connection.seen:
            connection.seen = now
            connection.quiet = 0
        else:
            connection.quiet += 1
            if connection.quiet >= SWEEPS:
                expired.append(connection)
    return expired
