"""What poll(2) and select(2) share: one call looks at every fd, and returns all that are ready.

What that means here
--------------------
*   The kernel keeps nothing between two calls.  The interest list is ours, and so is every answer
    that epoll's kernel side would give: EEXIST and ENOENT come from a table, EBADF from asking
    for the descriptor's flags.
*   A call costs O(registered).  Where more are ready than `max_events`, the rest is kept and
    handed out by the next poll() calls, without the kernel: a small `max_events` would otherwise
    cost O(registered) for each handful, and the fds at the end of the list would starve.
*   An event that was kept is dropped when its fd is unregistered, registered or modified in the
    meantime: it belongs to what was asked before.  Being level-triggered, it comes again if it
    is still true.
*   The kernel knows numbers, not open files.  A number that is closed while registered is
    reported as POLLNVAL and forgotten; one that is closed and opened again goes on being
    watched, with its new file.
"""

from __future__ import annotations

import errno
import fcntl
import os
from abc import ABC, abstractmethod

from pollers.base import MAX_EVENTS, Adapter, Events, check_max_events, check_registration
from pollers.wakeup import Wakeup


class ScanAdapter(Adapter, ABC):
    """A poller over a call that returns everything; a subclass says which call.

    It defines `_watch` (both for a new fd and for a new interest), `_forget` and `_scan`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wakeup = Wakeup()
        self._interests: dict[int, int] = {}
        self._rest: Events = []
        #: Whose events in `_rest` are of an earlier registration.
        self._outdated: set[int] = set()

    def register(
        self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False
    ) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        self._check_descriptor(fd)
        if fd in self._interests:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._watch(fd, interest)
        self._interests[fd] = interest
        self._outdate(fd)

    def modify(self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        self._check_known(fd)
        self._check_descriptor(fd)
        self._watch(fd, interest)
        self._interests[fd] = interest
        self._outdate(fd)

    def unregister(self, fd: int) -> None:
        self._check_open()
        if fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._check_known(fd)
        self._drop(fd)
        self._outdate(fd)

    def poll(self, timeout: float | None = None, max_events: int = MAX_EVENTS) -> Events:
        self._check_open()
        check_max_events(max_events)
        events = self._next_of_rest(max_events) if self._rest else []
        if events:
            if self._wakeup.pending:  # this return is what the wake asked for
                self._clear_wake()
        else:
            events = self._scan(timeout)
            self.counters.kernel_calls += 1
            if self._wakeup.pending:
                self._clear_wake()
                fd = self._wakeup.fd
                events = [event for event in events if event[0] != fd]
            if len(events) > max_events:
                self._rest = events
                events = self._next_of_rest(max_events)
        counters = self.counters
        try:
            counters.sizes[len(events)] += 1
        except IndexError:
            counters.count(len(events))
        return events

    def wake(self) -> None:
        self._wakeup.set()
        self.counters.wakes += 1

    def close(self) -> None:
        super().close()
        self._wakeup.close()
        self._interests.clear()
        self._rest.clear()

    @abstractmethod
    def _watch(self, fd: int, interest: int) -> None:
        """Tell the facility of a new fd, or of a new interest."""

    @abstractmethod
    def _forget(self, fd: int) -> None:
        """Tell the facility that `fd` is of no interest any more."""

    @abstractmethod
    def _scan(self, timeout: float | None) -> Events:
        """Ask the kernel once; the wake-up's fd may be among what is returned."""

    def _drop(self, fd: int) -> None:
        self._forget(fd)
        del self._interests[fd]

    def _check_known(self, fd: int) -> None:
        if fd not in self._interests:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _check_descriptor(self, fd: int) -> None:
        self.counters.kernel_calls += 1
        fcntl.fcntl(fd, fcntl.F_GETFD)

    def _clear_wake(self) -> None:
        self._wakeup.clear()
        self.counters.kernel_calls += 2  # the write that woke us, and the read

    def _outdate(self, fd: int) -> None:
        if self._rest:
            self._outdated.add(fd)

    def _next_of_rest(self, max_events: int) -> Events:
        rest, outdated = self._rest, self._outdated
        batch: Events = []
        while rest and not batch:
            batch = rest[-max_events:]
            del rest[-max_events:]
            if outdated:
                kept = [event for event in batch if event[0] not in outdated]
                self.counters.stale += len(batch) - len(kept)
                batch = kept
        if not rest:
            outdated.clear()
        return batch
