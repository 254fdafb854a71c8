"""poll(2), System V and POSIX.

Some facts about poll
---------------------
*   The whole list of fds is copied to the kernel, walked, and walked again for what is ready, at
    each call: 10,000 idle connections cost some hundred microseconds a call, whatever happens.
*   CPython keeps the list as a C array in `select.poll` and rebuilds it only after a change, so
    registrations are incremental here, and a call allocates nothing but its result.
*   The timeout is an int of milliseconds.  CPython rounds up, so that a wait is never too short.
*   A closed fd is no error: its slot says POLLNVAL, at every call until it is taken out.
*   The bits are the contract's, but for POLLRDHUP: 0x2000 on Linux, 0x4000 on FreeBSD (where
    0x2000 is POLLINIGNEOF), missing on macOS, where POLLIN stands for it.
"""

from __future__ import annotations

import operator
import select
from typing import Final

from pollers.base import LONGEST, POLLIN, POLLNVAL, POLLRDHUP, Events
from pollers.scan import ScanAdapter

#: This system's own POLLRDHUP, or 0.
NATIVE_RDHUP: Final[int] = getattr(select, "POLLRDHUP", 0)

_bits: Final = operator.itemgetter(1)


def to_native(interest: int, rdhup: int = NATIVE_RDHUP) -> int:
    """The contract's interest in the bits of a system whose POLLRDHUP is `rdhup` (0: none)."""
    if interest & POLLRDHUP:
        return interest & ~POLLRDHUP | (rdhup or POLLIN)
    return interest


def from_native(events: Events, rdhup: int = NATIVE_RDHUP) -> Events:
    """What such a system returned, in the contract's bits."""
    if rdhup == POLLRDHUP or not rdhup:
        return events
    return [(fd, bits & ~rdhup | POLLRDHUP if bits & rdhup else bits) for fd, bits in events]


class PollPoller(ScanAdapter):
    """The adapter over poll; the contract is in pollers.base.  Raises OSError at EMFILE."""

    name = "poll"

    def __init__(self) -> None:
        super().__init__()
        self._poll = select.poll()
        self._poll.register(self._wakeup.fd, POLLIN)

    def _watch(self, fd: int, interest: int) -> None:
        self._poll.register(fd, to_native(interest))  # replaces, where fd is there

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)

    def _scan(self, timeout: float | None) -> Events:
        if timeout is None or timeout > LONGEST:
            events = self._poll.poll()
        elif timeout <= 0:
            events = self._poll.poll(0)
        else:
            events = self._poll.poll(timeout * 1000)
        # Nothing else is ever reported for a closed fd: the bits are POLLNVAL exactly.
        if POLLNVAL in map(_bits, events):
            for fd, bits in events:
                if bits == POLLNVAL:
                    self._drop(fd)
        return from_native(events)
