"""epoll(7), Linux 2.6.

Some facts about epoll
----------------------
*   The kernel keeps the interest list, keyed by (fd number, open file), and already answers
    every misuse (EEXIST, ENOENT, EBADF, EPERM for regular files).  So this adapter keeps no
    table of its own, and a failed call leaves nothing to disagree about.
*   Its event bits are poll(2)'s, so the list that CPython returns goes to the caller as it is.
*   There is one registration per fd with one mask.  EPOLLONESHOT only disables it: `modify()`
    enables it again.
*   CPython's `epoll.poll()` rounds a timeout up to a whole millisecond and takes -1 for "for
    ever"; epoll_pwait2(2) (Linux 5.11) takes nanoseconds.  It is called by ctypes for the
    timeouts that rounding would more than double, and there alone, as ctypes costs about 2 us.
*   CPython's default for maxevents is FD_SETSIZE - 1; ours is always given.

epoll's design errors have a file of their own: tests/test_epoll_facts.py.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import sys
import time
from typing import TYPE_CHECKING, Final

from pollers.base import (
    LONGEST,
    MAX_EVENTS,
    Adapter,
    Capability,
    Events,
    check_max_events,
    check_registration,
)
from pollers.syscall import MACHINE, Timespec, syscall
from pollers.wakeup import Wakeup

if TYPE_CHECKING:
    from pollers.arrays import Arrays, EpollWait

assert not TYPE_CHECKING or sys.platform == "linux"

NR_EPOLL_PWAIT2: Final = 441  # the same number on every architecture

#: Timeouts (seconds) below this are given to epoll_pwait2 where there is one.
PRECISE_BELOW: Final = 0.002

#: struct epoll_event is packed on x86_64 only (<sys/epoll.h>, __EPOLL_PACKED).
EVENT: Final = struct.Struct("=IQ" if MACHINE == "x86_64" else "=I4xQ")


class EpollPoller(Adapter):
    """The adapter over epoll; the contract is in pollers.base.  Raises OSError at EMFILE."""

    name = "epoll"

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll()
        try:
            self._wakeup = Wakeup()
        except OSError:
            self._epoll.close()
            raise
        self._epoll.register(self._wakeup.fd, select.EPOLLIN)
        self._wait = self._epoll.poll
        self._wait_arrays: EpollWait | None = None
        self.capabilities = Capability.EDGE | Capability.ONESHOT | Capability.FILENO
        if self._has_pwait2():
            self.capabilities |= Capability.SUBMILLISECOND

    def register(
        self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False
    ) -> None:
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        self._epoll.register(fd, self._mask(interest, edge, oneshot))
        self.counters.kernel_calls += 1

    def modify(self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False) -> None:
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        self._epoll.modify(fd, self._mask(interest, edge, oneshot))
        self.counters.kernel_calls += 1

    def unregister(self, fd: int) -> None:
        if fd < 0:  # CPython would raise ValueError
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._epoll.unregister(fd)
        self.counters.kernel_calls += 1

    def poll(self, timeout: float | None = None, max_events: int = MAX_EVENTS) -> Events:
        check_max_events(max_events)  # CPython takes -1 for FD_SETSIZE - 1
        if timeout is None or timeout > LONGEST:
            events = self._wait(None, max_events)
        elif timeout <= 0:
            events = self._wait(0, max_events)
        elif timeout < PRECISE_BELOW and self.capabilities & Capability.SUBMILLISECOND:
            events = self._wait_precisely(timeout, max_events)
        else:
            events = self._wait(timeout, max_events)
        counters = self.counters
        counters.kernel_calls += 1
        if self._wakeup.pending:
            events = self._without_wake(events)
        try:
            counters.sizes[len(events)] += 1
        except IndexError:
            counters.count(len(events))
        return events

    def poll_arrays(self, timeout: float | None, max_events: int) -> Arrays:
        """As poll(), with arrays for an answer (pollers.arrays).  It needs numpy.

        A timeout is rounded up to a whole millisecond.
        """
        self._check_open()
        check_max_events(max_events)
        if self._wait_arrays is None:
            from pollers.arrays import EpollWait

            self._wait_arrays = EpollWait(self._epoll.fileno())
        fds, bits = self._wait_arrays(timeout, max_events)
        counters = self.counters
        counters.kernel_calls += 1
        if self._wakeup.pending:
            self._wakeup.clear()
            counters.kernel_calls += 2  # the write that woke us, and the read
            others = fds != self._wakeup.fd
            fds, bits = fds[others], bits[others]
        counters.count(len(fds))
        return fds, bits

    def wake(self) -> None:
        self._wakeup.set()
        self.counters.wakes += 1

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        super().close()
        self._epoll.close()
        self._wakeup.close()

    @staticmethod
    def _mask(interest: int, edge: bool, oneshot: bool) -> int:
        if edge:
            interest |= select.EPOLLET
        if oneshot:
            interest |= select.EPOLLONESHOT
        return interest

    def _without_wake(self, events: Events) -> Events:
        self._wakeup.clear()
        self.counters.kernel_calls += 2  # the write that woke us, and the read
        fd = self._wakeup.fd
        return [event for event in events if event[0] != fd]

    def _has_pwait2(self) -> bool:
        try:
            self._pwait2(ctypes.create_string_buffer(EVENT.size), 1, 0.0)
        except OSError:  # ENOSYS before Linux 5.11, EPERM from a container's seccomp filter
            return False
        return True

    def _pwait2(self, buffer: ctypes.Array[ctypes.c_char], max_events: int, wait: float) -> int:
        limit = Timespec.of(wait)
        return syscall(
            "epoll_pwait2",
            NR_EPOLL_PWAIT2,
            ctypes.c_int(self._epoll.fileno()),
            buffer,
            ctypes.c_int(max_events),
            ctypes.byref(limit),
            None,
            ctypes.c_size_t(8),
        )

    def _wait_precisely(self, timeout: float, max_events: int) -> Events:
        deadline = time.monotonic() + timeout
        buffer = ctypes.create_string_buffer(EVENT.size * max_events)
        while True:
            try:
                count = self._pwait2(buffer, max_events, timeout)
            except InterruptedError:  # by now the signal's handler has run
                timeout = max(0.0, deadline - time.monotonic())
                continue
            return [
                (data & 0xFFFFFFFF, bits)
                for bits, data in EVENT.iter_unpack(buffer.raw[: count * EVENT.size])
            ]
