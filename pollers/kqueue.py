"""kqueue(2), FreeBSD 4.1, and every other BSD and macOS after it.

Some facts about kqueue
-----------------------
*   The kernel never says EEXIST, and close(fd) removes its knotes without a word.  So there is a
    table here, and where it says "registered" the kernel is asked whether it still agrees: a
    number that was closed and opened again can be registered anew.
*   Changes go with EV_RECEIPT and room for each, so that all are tried and each answers.  Where
    one of an fd fails its others are undone, and table and kernel agree again.  A thousand fds
    are registered by one call (`register_many`), which epoll and poll have nothing like.
*   Edge-triggered is EV_CLEAR, one-shot EV_DISPATCH.  EV_ONESHOT is not used: it deletes the
    knote, and a fired one-shot could not be told from a number that was closed and reused.
*   Each knote comes at most once a call, and a level-triggered one goes to the end of the queue
    when it is returned: fair.  An fd with two filters may be two records, so asking for
    `max_events` records never yields more than that many fds, and what was consumed (edge-
    triggered, one-shot) is all handed on.  Its second filter may come with the next call.
*   `nevents` 0 returns at once whatever the timeout, so at least one is always asked for.
*   CPython's control() retries after EINTR with the time that remains, and takes nanoseconds.
*   EVFILT_USER wakes a poll() from any thread with one call and no file descriptor.  Where it
    is missing a pipe does it (pollers.wakeup).
*   A kqueue is not inherited by fork(): in the child its number is free, and soon some other
    file's.  CPython closed that number all the same before 3.11.7 (gh-110395).

What the changes and the records are is in pollers.kevents.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from pollers import kevents
from pollers.base import (
    LONGEST,
    MAX_EVENTS,
    Adapter,
    Capability,
    Events,
    check_max_events,
    check_registration,
)
from pollers.kevents import Change, Dialect, Kevent, Registration
from pollers.wakeup import Wakeup


class Kqueue(Protocol):
    """What is used of select.kqueue."""

    @property
    def closed(self) -> bool: ...
    def control(
        self, changelist: Sequence[Any] | None, max_events: int, timeout: float | None = None, /
    ) -> Sequence[Kevent]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Opened(NamedTuple):
    """A kqueue object and how to speak to it."""

    kq: Kqueue
    #: Makes an entry of a change list from (ident, filter, flags, fflags, data).
    kevent: Callable[[int, int, int, int, int], Any]
    dialect: Dialect
    emulated: bool = False


#: Kqueues of a parent process that their destructor would close in this child.
_inherited: Final[list[Kqueue]] = []


def open_kqueue() -> Opened:
    """Make a kqueue: the system's own, or on Linux libkqueue's.

    Raises OSError, with one line that says why and what to do, where there is neither, and
    OSError(EMFILE).
    """
    if sys.platform == "linux":
        from pollers import libkqueue

        opened = Opened(libkqueue.kqueue(), libkqueue.kevent, libkqueue.DIALECT, emulated=True)
    else:
        if getattr(select, "kqueue", None) is None:
            raise OSError(
                "this Python has no select.kqueue (gevent's monkey patching removes it); "
                "use a process of its own, or another poller"
            )
        here = [d for name, d in kevents.DIALECTS.items() if sys.platform.startswith(name)]
        opened = Opened(select.kqueue(), select.kevent, here[0] if here else kevents.OTHER)
    return opened


class KqueuePoller(Adapter):
    """The adapter over kqueue; the contract is in pollers.base.

    Raises what `kq_factory` (by default `open_kqueue`) raises.
    """

    name = "kqueue"
    capabilities = Capability.EDGE | Capability.ONESHOT | Capability.SUBMILLISECOND

    def __init__(self, kq_factory: Callable[[], Opened] | None = None) -> None:
        super().__init__()
        opened = (kq_factory or open_kqueue)()
        self._kq, self._kevent, self._dialect, self.emulated = opened
        self._control = self._kq.control
        if not self.emulated:  # libkqueue's number is a pipe's, which is never readable
            self.capabilities |= Capability.FILENO
        self._pid = os.getpid()
        self._table: dict[int, Registration] = {}
        #: How many registrations are one-shot: where none is, poll() need not look for them.
        self._oneshots = 0
        self._wakeup: Wakeup | None = None
        try:
            self._wake = self._arm_wake()
        except OSError:
            self.close()
            raise

    def register(
        self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False
    ) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        refused = self._add({fd: kevents.registration(interest, edge, oneshot, self._dialect)})
        if refused:
            raise refused[fd]

    def register_many(
        self, interests: Mapping[int, int], *, edge: bool = False, oneshot: bool = False
    ) -> dict[int, OSError]:
        """Register many fds, {fd: interest}, by one kevent(2); return the refused, {fd: error}.

        An error is what `register` would have raised for that fd alone, and says nothing of the
        others: those are registered.  What no kernel has to judge is raised before anything was
        changed, as `register` raises it.
        """
        self._check_open()
        new: dict[int, Registration] = {}
        for fd, interest in interests.items():
            check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
            new[fd] = kevents.registration(interest, edge, oneshot, self._dialect)
        return self._add(new)

    def modify(self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        new = kevents.registration(interest, edge, oneshot, self._dialect)
        old = self._table.get(fd)
        if old is None:
            raise _oserror(errno.ENOENT)
        changes = kevents.replaced(fd, old, new)
        errors = self._change(changes)
        if any(errors):
            if any(self._change(kevents.undone(changes, errors, old))):
                # Nothing at all is the one thing left that both sides can agree on.
                self._change(kevents.deleted(fd, {**old.filters, **new.filters}))
                self._leave(fd)
            raise _first(errors)
        self._leave(fd)
        self._enter(fd, new)

    def unregister(self, fd: int) -> None:
        self._check_open()
        if fd < 0:
            raise _oserror(errno.EBADF)
        old = self._table.get(fd)
        if old is None:
            raise _oserror(errno.ENOENT)
        self._leave(fd)  # EV_DELETE fails only where the knote is gone: ENOENT, EBADF
        errors = self._change(kevents.deleted(fd, old.filters))
        if any(errors):
            raise _first(errors)

    def poll(self, timeout: float | None = None, max_events: int = MAX_EVENTS) -> Events:
        self._check_open()
        check_max_events(max_events)
        if timeout is not None and timeout <= 0:
            events, _ = self._ask(max_events, 0)
        elif timeout is None or timeout > LONGEST:
            done = False
            while not done:
                events, done = self._ask(max_events, None)
        else:
            deadline = time.monotonic() + timeout
            while True:
                events, done = self._ask(max_events, timeout)
                if done:
                    break
                timeout = deadline - time.monotonic()
                if timeout <= 0:
                    break
        counters = self.counters
        try:
            counters.sizes[len(events)] += 1
        except IndexError:
            counters.count(len(events))
        return events

    def wake(self) -> None:
        self._check_open()
        if self._wakeup is None:
            ident, filter_ = self._wake
            self._control([self._kevent(ident, filter_, 0, kevents.NOTE_TRIGGER, 0)], 0, 0)
            self.counters.kernel_calls += 1
        else:
            self._wakeup.set()
        self.counters.wakes += 1

    def fileno(self) -> int:
        if Capability.FILENO not in self.capabilities:
            return super().fileno()
        return self._kq.fileno()

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        self._table.clear()
        if self._pid == os.getpid():
            self._kq.close()
        elif not self._kq.closed:
            _inherited.append(self._kq)
        if self._wakeup is not None:
            self._wakeup.close()

    def _ask(self, max_events: int, timeout: float | None) -> tuple[Events, bool]:
        """One kevent(): the events, and whether poll() has an answer (events or a wake)."""
        records = self._control(None, max_events, timeout)
        counters = self.counters
        counters.kernel_calls += 1
        if not records:
            return [], False
        events, wakes, stale, gone = kevents.ready(records, self._table, self._dialect, self._wake)
        if self._oneshots:
            self._change(kevents.silenced(records, self._table))
        if wakes and self._wakeup is not None:
            self._wakeup.clear()
            counters.kernel_calls += 2  # the write that woke us, and the read
        counters.stale += stale
        for fd in gone:
            self._leave(fd)
        return events, bool(events) or wakes > 0

    def _arm_wake(self) -> tuple[int, int]:
        """Add what wakes a poll(); its (ident, filter)."""
        user = self._dialect.user
        if user is not None:
            flags = kevents.EV_ADD | kevents.EV_CLEAR | kevents.EV_RECEIPT
            if not any(self._change([Change(kevents.WAKE_IDENT, user, flags)])):
                return kevents.WAKE_IDENT, user
        self._wakeup = Wakeup()
        read = self._dialect.read
        errors = self._change([Change(self._wakeup.fd, read, kevents.EV_ADD | kevents.EV_RECEIPT)])
        if any(errors):
            raise _first(errors)
        return self._wakeup.fd, read

    def _change(self, changes: Sequence[Change]) -> list[int]:
        """Have the kernel make `changes`; the errno of each, 0 where it was made."""
        if not changes:
            return []
        self.counters.kernel_calls += 1
        make = self._kevent
        receipts = self._control([make(*change) for change in changes], len(changes), 0)
        return kevents.errors_of(changes, receipts)

    def _add(self, registrations: Mapping[int, Registration]) -> dict[int, OSError]:
        """Add all in one call, each with both of its filters or not at all; the refused."""
        refused: dict[int, OSError] = {}
        for fd in registrations:
            if fd in self._table:
                try:
                    self._check_gone(fd)
                except OSError as error:
                    refused[fd] = error
        changes = [
            change
            for fd, new in registrations.items()
            if fd not in refused
            for change in kevents.added(fd, new)
        ]
        errors = self._change(changes)
        for fd, found in kevents.by_fd(changes, errors).items():
            if any(found):
                self._change(kevents.undone(kevents.added(fd, registrations[fd]), found, None))
                refused[fd] = _first(found)
            else:
                self._enter(fd, registrations[fd])
        return refused

    def _check_gone(self, fd: int) -> None:
        """Forget a registration whose file was closed.

        Raises FileExistsError where the kernel still has it, OSError(EBADF) where fd is closed.
        """
        old = self._table[fd]
        errors = self._change(kevents.confirmed(fd, old))
        if not any(errors):
            raise _oserror(errno.EEXIST)
        self._leave(fd)
        if errno.ENOENT not in errors:
            raise _first(errors)

    def _enter(self, fd: int, new: Registration) -> None:
        self._table[fd] = new
        self._oneshots += new.oneshot

    def _leave(self, fd: int) -> None:
        self._oneshots -= self._table.pop(fd).oneshot


def _oserror(number: int) -> OSError:
    """The subclass of OSError that belongs to an errno."""
    return OSError(number, os.strerror(number))


def _first(errors: Sequence[int]) -> OSError:
    return _oserror(next(filter(None, errors)))
