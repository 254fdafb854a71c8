"""Idle timeouts for every loop, at the price of one attribute store a read.

A connection counts the bytes that it `received`, which the counters need anyway.  A sweep runs
four times a timeout and counts the sweeps that found the same number: after four, nothing came for
at least the timeout and at most 1.25 times as long.  (A connection that is new or gets rid of
bytes sets `quiet` to -1 itself: the next sweep is less than a quarter away and must not
count.)  No timer per connection, no clock on the hot path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

SWEEPS: Final = 4


class Idler(Protocol):
    received: int
    seen: int
    quiet: int


T = TypeVar("T", bound=Idler)


def sweep(connections: Iterable[T]) -> list[T]:
    """Advance every connection by one sweep; return those that have been idle too long."""
    expired = []
    for connection in connections:
        if connection.received != connection.seen:
            connection.seen = connection.received
            connection.quiet = 0
        else:
            connection.quiet += 1
            if connection.quiet >= SWEEPS:
                expired.append(connection)
    return expired
