"""Idle timeouts for every loop, at the price of one attribute store a read.

A connection sets `active` when bytes move.  A sweep runs four times a timeout, clears the mark,
and counts the sweeps that found none: after four, nothing moved for at least the timeout and at
most 1.25 times as long.  No timer per connection, no clock on the hot path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

SWEEPS: Final = 4


class Idler(Protocol):
    active: bool
    quiet: int


T = TypeVar("T", bound=Idler)


def sweep(connections: Iterable[T]) -> list[T]:
    """Advance every connection by one sweep; return those that have been idle too long."""
    expired = []
    for connection in connections:
        if connection.active:
            connection.active = False
            connection.quiet = 0
        else:
            connection.quiet += 1
            if connection.quiet >= SWEEPS:
                expired.append(connection)
    return expired
