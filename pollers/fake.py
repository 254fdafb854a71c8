"""A poller without a kernel, for the tests of what is driven by one.

What it does
------------
*   It keeps the contract's rules about registration, closing, waking, `max_events` and fairness,
    as they need no kernel; the contract tests run over it for these.
*   fds are any non-negative numbers; nothing is ever read from or written to them.
*   A poll() first plays the next step of its script: a list of events is returned as it is, an
    exception is raised, a function is called and its events returned.  When the script is over,
    it returns what `set_ready()` made ready.
*   Nothing waits.  With a timeout and nothing ready it adds the timeout to `waited` and returns
    at once; without one it raises WouldBlock, as it would wait for ever.
*   `calls` records every successful call in order: ("register", fd, interest), ("poll", timeout).
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias

from pollers.base import (
    INTEREST,
    MAX_EVENTS,
    POLLERR,
    POLLHUP,
    POLLNVAL,
    Adapter,
    Capability,
    Events,
    check_max_events,
    check_registration,
)

Step: TypeAlias = Events | BaseException | Callable[[], Events]


class WouldBlock(AssertionError):
    """poll(None) with nothing ready, nothing scripted and no wake: a real one never returns."""


class FakePoller(Adapter):
    """A Poller that is told what is ready."""

    name = "fake"
    emulated = True
    capabilities = Capability.ONESHOT

    def __init__(self, script: Iterable[Step] = ()) -> None:
        super().__init__()
        self.script = deque(script)
        #: fd -> interest of everything registered; 0 for a one-shot that has fired.
        self.interests: dict[int, int] = {}
        self.calls: list[tuple[object, ...]] = []
        #: Seconds that poll() would have waited.
        self.waited = 0.0
        self._ready: dict[int, int] = {}
        self._oneshots: set[int] = set()
        self._woken = False

    def set_ready(self, fd: int, bits: int) -> None:
        """From now on `fd` is ready for `bits`, registered or not; 0 makes it not ready."""
        self._ready.pop(fd, None)
        if bits:
            self._ready[fd] = bits

    def register(
        self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False
    ) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        if fd in self.interests:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._set(fd, interest, oneshot)
        self.calls.append(("register", fd, interest))

    def modify(self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        self._check_known(fd)
        self._set(fd, interest, oneshot)
        self.calls.append(("modify", fd, interest))

    def unregister(self, fd: int) -> None:
        self._check_open()
        self._check_known(fd)
        del self.interests[fd]
        self._oneshots.discard(fd)
        self.calls.append(("unregister", fd))

    def poll(self, timeout: float | None = None, max_events: int = MAX_EVENTS) -> Events:
        self._check_open()
        check_max_events(max_events)
        self.calls.append(("poll", timeout))
        if self.script:
            events = self._play(self.script.popleft())
        else:
            events = self._take_ready(max_events)
            if not events and not self._woken:
                if timeout is None:
                    raise WouldBlock("poll(None) would wait for ever")
                self.waited += max(0.0, timeout)
        self._woken = False
        self.counters.count(len(events))
        return events

    def wake(self) -> None:
        self._check_open()
        self._woken = True
        self.counters.wakes += 1

    def _check_known(self, fd: int) -> None:
        if fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if fd not in self.interests:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _set(self, fd: int, interest: int, oneshot: bool) -> None:
        self.interests[fd] = interest
        self._oneshots.discard(fd)
        if oneshot:
            self._oneshots.add(fd)

    @staticmethod
    def _play(step: Step) -> Events:
        if isinstance(step, BaseException):
            raise step
        return step() if callable(step) else step

    def _take_ready(self, max_events: int) -> Events:
        """Up to `max_events` that are ready; they go to the end of the line, to be fair."""
        events: Events = []
        for fd, ready in self._ready.items():
            interest = self.interests.get(fd, 0)
            bits = ready & (interest & INTEREST | POLLERR | POLLHUP | POLLNVAL)
            if interest and bits:
                events.append((fd, bits))
                if len(events) == max_events:
                    break
        for fd, _ in events:
            self._ready[fd] = self._ready.pop(fd)
            if fd in self._oneshots:
                self.interests[fd] = 0
        return events
