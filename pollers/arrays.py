"""Many events at once: poll() with two numpy arrays for an answer instead of a list of pairs.

Facts
-----
*   A list of pairs costs about 0.1 us an event to make and 0.2 us more to turn into an array;
    whoever handles thousands of events by whole columns has no use for it.
*   epoll_wait(2) writes into memory of the caller.  Called by ctypes it costs about 1 us more
    than CPython's, once a call, and its events are then columns of that memory as they are.
*   Linux AIO's completions are arrays from the beginning (pollers.aio.poller).

An adapter that has such a way of its own has a method `poll_arrays`; for the others the list is
converted.  What is promised of poll() in pollers.base is promised of this.
"""

from __future__ import annotations

import ctypes
import errno
import math
import time
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pollers.base import LONGEST, Events, Poller
from pollers.syscall import MACHINE, check

#: The fds and the ready bits of events, in one order.
Arrays: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
PollArrays: TypeAlias = Callable[[float | None, int], Arrays]

#: struct epoll_event is packed on x86_64 only.  `fd` is a member of the union `data`: it begins
#: where that does, whatever the byte order.
EPOLL_EVENT: Final = np.dtype(
    {
        "names": ["events", "fd"],
        "formats": ["u4", "i4"],
        "offsets": [0, 4] if MACHINE == "x86_64" else [0, 8],
        "itemsize": 12 if MACHINE == "x86_64" else 16,
    }
)

_NONE: Final[Arrays] = (np.empty(0, np.int64), np.empty(0, np.int64))


def poll_arrays(poller: Poller) -> PollArrays:
    """A function like `poller.poll`, whose result are arrays that the caller may keep."""
    own: PollArrays | None = getattr(poller, "poll_arrays", None)
    if own is not None:
        return own

    def converted(timeout: float | None, max_events: int) -> Arrays:
        return from_events(poller.poll(timeout, max_events))

    return converted


def from_events(events: Events) -> Arrays:
    """A list of pairs as two arrays."""
    if not events:
        return _NONE
    columns = np.array(events, np.int64)
    return columns[:, 0], columns[:, 1]


class EpollWait:
    """epoll_wait(2) into arrays."""

    def __init__(self, epoll_fd: int) -> None:
        function = ctypes.CDLL(None, use_errno=True)["epoll_wait"]
        function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
        function.restype = ctypes.c_int
        self._function = function
        self._epoll_fd = epoll_fd
        self._make_room(512)

    def __call__(self, timeout: float | None, max_events: int) -> Arrays:
        """Wait up to `timeout` seconds, rounded up to milliseconds, signals notwithstanding."""
        if max_events > len(self._fds):
            self._make_room(max_events)
        deadline = None
        if timeout is None or timeout > LONGEST:
            wait = -1
        elif timeout <= 0:
            wait = 0
        else:
            wait, deadline = math.ceil(timeout * 1000), time.monotonic() + timeout
        while True:
            count = self._function(self._epoll_fd, self._events_at, max_events, wait)
            if count >= 0:
                return self._fds[:count].astype(np.int64), self._bits[:count].astype(np.int64)
            if ctypes.get_errno() != errno.EINTR:
                check(count, "epoll_wait")
            if deadline is not None:
                wait = math.ceil(max(0.0, deadline - time.monotonic()) * 1000)

    def _make_room(self, max_events: int) -> None:
        events = np.zeros(max_events, EPOLL_EVENT)
        self._events_at = events.ctypes.data
        self._fds, self._bits = events["fd"], events["events"]
