"""The two halves of a rename, brought together: pure, told the time.

Facts
-----
*   inotify tells a rename as IN_MOVED_FROM and IN_MOVED_TO with the same cookie, which is not 0.
    They are queued one after the other, but not at once: other events may stand between them, and
    read(2) may return the first alone.
*   The second never comes where the other directory is not watched.  Nothing says so.

What does this mean for us?
---------------------------
*   A first half without its second is held back for a while, and *with it all that came later*: a
    name that was moved away may be there again in the next event.
*   What waits is bounded by time and not by number: all halves that were read at once are due at
    once, so that 10,000 files that are moved out one by one wait once.
*   A second half that comes too late is what came in from elsewhere, and the first was told as
    deleted: both true.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, Protocol, TypeVar

from pollers.inotify import IN_MOVED_FROM, IN_MOVED_TO

#: Seconds for which a first half waits: the kernel needs microseconds between the two, unless it
#: is preempted there.
WAIT: Final = 0.02


class Moving(Protocol):
    """What is used of an event."""

    @property
    def mask(self) -> int: ...

    @property
    def cookie(self) -> int: ...


E = TypeVar("E", bound=Moving)


class Pairing(Generic[E]):
    """A queue of events in which halves wait for each other."""

    def __init__(self, wait: float = WAIT) -> None:
        self._wait = wait
        #: Each event and, of a first half, when it is due; 0 of the others.
        self._queue: deque[tuple[E, float]] = deque()
        #: cookie -> its second half.
        self._seconds: dict[int, E] = {}
        self._firsts: set[int] = set()

    def __len__(self) -> int:
        """How many events are held back."""
        return len(self._queue)

    def feed(self, events: list[E], now: float) -> list[tuple[E, E | None]]:
        """Take what was read at `now`, and return what need not wait any more, in order.

        Of a rename both halves, at the place of the first; of everything else the event and None.
        """
        queue, firsts = self._queue, self._firsts
        for event in events:
            mask = event.mask
            if mask & IN_MOVED_TO and event.cookie in firsts:
                firsts.remove(event.cookie)
                self._seconds[event.cookie] = event
                continue
            due = 0.0
            if mask & IN_MOVED_FROM and event.cookie:
                firsts.add(event.cookie)
                due = now + self._wait
            queue.append((event, due))
        return self._due(now)

    @property
    def deadline(self) -> float | None:
        """When `feed([], now)` will return more, whatever comes; None where nothing waits."""
        return self._queue[0][1] if self._queue else None

    def clear(self) -> None:
        """Forget all that is held back."""
        self._queue.clear()
        self._seconds.clear()
        self._firsts.clear()

    def _due(self, now: float) -> list[tuple[E, E | None]]:
        queue, seconds = self._queue, self._seconds
        ready: list[tuple[E, E | None]] = []
        while queue:
            event, due = queue[0]
            second = seconds.pop(event.cookie, None) if due else None
            if due and second is None:
                if due > now:
                    break
                self._firsts.discard(event.cookie)
            queue.popleft()
            ready.append((event, second))
        return ready
