"""When which connection sends, when a load is steady, how fairly it was served.  Pure.

What this file is
-----------------
The arithmetic of a swarm, apart from sockets and clocks.  An open loop sends message k at
`start + k * period`, on slot k modulo the number of slots, whatever the server does.  So the
time at which a slot *ought* to send its next message needs no queue: it is computed, and a
message that is late because the one before it was not answered yet is recorded from when it
ought to have gone (coordinated omission, as in wrk2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

#: Windows that the slope is fitted to.
WINDOWS: Final = 8
#: The fitted change over these windows, as a share of their mean, that still counts as none.
TOLERANCE: Final = 0.05


def parse_active(text: str, connections: int) -> int:
    """How many of `connections` are active: "100%", "1%" or a number.

    Raises ValueError with one line unless 0 <= the result <= connections.
    """
    stated = text.strip()
    try:
        if stated.endswith("%"):
            share = float(stated[:-1])
            active = math.ceil(connections * share / 100) if 0 <= share <= 100 else -1
        else:
            active = int(stated)
    except ValueError:
        active = -1
    if not 0 <= active <= connections:
        raise ValueError(
            f"{text!r} is not a part of {connections} connections: "
            f"give a percentage (1%) or a number up to {connections}"
        )
    return active


def active_slots(connections: int, active: int) -> list[int]:
    """Which connections are active: `active` of them, spread evenly over all."""
    return [i * connections // active for i in range(active)]


class Schedule:
    """Fixed arrivals: message k is meant for `start + k * period`, on slot k % slots.

    Times are integer nanoseconds of one monotonic clock; `rate` is messages a second.
    """

    def __init__(self, rate: float, slots: int, start: int) -> None:
        if rate <= 0 or slots <= 0:
            raise ValueError("a schedule needs a rate and slots above 0")
        self.rate = rate
        self.slots = slots
        self.start = start
        #: The first message that `due` has not announced yet.
        self.cursor = 0

    def time(self, message: int) -> int:
        """When message number `message` is meant to be sent."""
        return self.start + int(message * 1e9 / self.rate)

    def intended(self, slot: int, turn: int) -> int:
        """When `slot` is meant to send its message number `turn` (from 0)."""
        return self.time(slot + turn * self.slots)

    def due(self, now: int) -> range:
        """The slots' messages that have become due since the last call, as a range of numbers."""
        first = self.cursor
        if now >= self.start:
            last = int((now - self.start) * self.rate / 1e9) + 1
            while self.time(last - 1) > now:  # rounding, at most once
                last -= 1
            while self.time(last) <= now:
                last += 1
            self.cursor = max(first, last)
        return range(first, self.cursor)

    def wait(self, now: int) -> float:
        """Seconds from `now` until the next message is due; 0 where one is."""
        return max(0, self.time(self.cursor) - now) / 1e9


class Steadiness:
    """Says when a throughput, given as one count a window, has stopped rising or falling."""

    def __init__(self, windows: int = WINDOWS, tolerance: float = TOLERANCE) -> None:
        self._keep = windows
        self._tolerance = tolerance
        self._counts: list[float] = []

    def add(self, count: float) -> bool:
        """Take the next window's count; True when the last windows show no slope."""
        self._counts = [*self._counts, count][-self._keep :]
        if len(self._counts) < self._keep:
            return False
        mean = sum(self._counts) / self._keep
        return abs(slope(self._counts)) * self._keep <= self._tolerance * mean


def slope(values: Sequence[float]) -> float:
    """Change of `values` from one to the next, by least squares."""
    n = len(values)
    centre, mean = (n - 1) / 2, sum(values) / n
    spread = sum((i - centre) ** 2 for i in range(n))
    return sum((i - centre) * (v - mean) for i, v in enumerate(values)) / spread


def fairness(served: Sequence[int]) -> dict[str, float]:
    """How evenly connections were served: min, median and max count, and Jain's index.

    Jain's index is 1 where all are equal and 1/n where one gets everything.
    """
    if not served:
        return {"min": 0, "median": 0, "max": 0, "jain": 1.0}
    ordered = sorted(served)
    squares = sum(n * n for n in ordered)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else sum(ordered[middle - 1 : middle + 1]) / 2
    return {
        "min": ordered[0],
        "median": median,
        "max": ordered[-1],
        "jain": sum(ordered) ** 2 / (len(ordered) * squares) if squares else 1.0,
    }
