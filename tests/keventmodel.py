"""A model of kqueue(2) as four systems have it, for tests/test_kevents_*.py.

It does what the kernels' kqueue_register() and kqueue_scan() do with change lists: FreeBSD's and
NetBSD's sys/kern/kern_event.c, OpenBSD's file of the same name, macOS's bsd/kern/kern_event.c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from pollers import kevents
from pollers.kevents import (
    EV_ADD,
    EV_CLEAR,
    EV_DELETE,
    EV_DISABLE,
    EV_DISPATCH,
    EV_ENABLE,
    EV_ERROR,
    EV_RECEIPT,
    NOTE_TRIGGER,
    WAKE_IDENT,
    Change,
    Dialect,
)

#: The filters' numbers here, which are FreeBSD's.
READ, WRITE, USER = -1, -2, -11
WAKE = (WAKE_IDENT, USER)


@dataclass(frozen=True)
class System:
    """What differs between kernels in the flags that they return."""

    name: str
    dialect: Dialect
    #: Flags of a change that its knote, and so its records, do not keep.
    taken_out: int
    #: Whether a receipt has the flags of its change beside EV_ERROR.
    receipts_keep_flags: bool = False

    def __str__(self) -> str:
        return self.name


FREEBSD = System(
    "freebsd", kevents.DIALECTS["freebsd"], EV_ADD | EV_DELETE | EV_ENABLE | EV_DISABLE
)
MACOS = System(
    "macos", kevents.DIALECTS["darwin"], EV_DELETE | EV_DISABLE, receipts_keep_flags=True
)
OPENBSD = System("openbsd", kevents.DIALECTS["openbsd"], 0)
NETBSD = System("netbsd", kevents.DIALECTS["netbsd"], 0)
SYSTEMS = (FREEBSD, MACOS, OPENBSD, NETBSD)


class Kernel:
    """A system's kqueue for idents that need not be open, with errors on demand.

    Filters are READ, WRITE and USER here, whatever number the system's own have.
    """

    def __init__(self, system: System = FREEBSD) -> None:
        self.system = system
        dialect = system.dialect
        self._ours = {dialect.read: READ, dialect.write: WRITE, dialect.user: USER}
        self._theirs = {ours: theirs for theirs, ours in self._ours.items()}
        self.open: set[int] = set()
        #: In the order of the kernel's queue.
        self.knotes: dict[tuple[int, int], Change] = {}
        self.disabled: set[tuple[int, int]] = set()
        #: What is ready: (ident, filter) -> (flags, fflags, data).
        self.ready: dict[tuple[int, int], tuple[int, int, int]] = {}
        #: Additions that fail, and why.
        self.refuse: dict[tuple[int, int], int] = {}
        self.timeouts: list[float | None] = []
        self.closed = False
        self.closes = 0

    def close_fd(self, fd: int) -> None:
        """close(2): removes the knotes of fd."""
        self.open.discard(fd)
        for key in [key for key in self.knotes if key[0] == fd]:
            self.drop(key)

    def drop(self, key: tuple[int, int]) -> None:
        del self.knotes[key]
        self.disabled.discard(key)

    def fileno(self) -> int:
        return 3

    def close(self) -> None:
        self.closed = True
        self.closes += 1

    def control(
        self, changelist: Sequence[Change] | None, max_events: int, timeout: float | None = None, /
    ) -> list[Change]:
        receipts: list[Change] = []
        for change in changelist or ():
            error = self.apply(change._replace(filter=self._ours[change.filter]))
            if error or change.flags & EV_RECEIPT:
                if len(receipts) == max_events:
                    if error:
                        raise OSError(error, os.strerror(error))
                    return receipts
                kept = change.flags if self.system.receipts_keep_flags else 0
                receipts.append(change._replace(flags=EV_ERROR | kept, data=error))
        if receipts or not max_events:
            return receipts
        self.timeouts.append(timeout)
        return self.scan(max_events)

    def apply(self, change: Change) -> int:
        key = change.ident, change.filter
        if change.filter == USER:
            if change.flags & EV_ADD and key in self.refuse:
                return self.refuse[key]
            if change.fflags & NOTE_TRIGGER:
                self.ready[key] = (0, 0, 0)
        elif change.ident not in self.open:
            return errno.EBADF
        if key not in self.knotes:
            if not change.flags & EV_ADD:
                return errno.ENOENT
            if key in self.refuse:
                return self.refuse[key]
            self.knotes[key] = change
        elif change.flags & EV_DELETE:
            self.drop(key)
            return 0
        else:
            flags = self.knotes[key].flags  # EV_ADD does not change them
            self.knotes[key] = change._replace(flags=flags)
        if change.flags & EV_DISABLE:
            self.disabled.add(key)
        if change.flags & EV_ENABLE:
            self.disabled.discard(key)
        return 0

    def scan(self, max_events: int) -> list[Change]:
        records: list[Change] = []
        for key, knote in list(self.knotes.items()):
            if len(records) == max_events:
                break
            if key in self.disabled or key not in self.ready:
                continue
            flags, fflags, data = self.ready[key]
            kept = knote.flags & ~self.system.taken_out
            filter_ = self._theirs[key[1]]
            records.append(Change(key[0], filter_, kept | flags, fflags, data))
            if knote.flags & EV_DISPATCH:
                self.disabled.add(key)
            if knote.flags & EV_CLEAR:
                del self.ready[key]
            self.knotes[key] = self.knotes.pop(key)  # to the end of the queue
        return records


def knotes_of(kernel: Kernel, fd: int) -> dict[int, int]:
    """The filters of fd in the kernel, with what is left of their flags."""
    keep = EV_CLEAR | EV_DISPATCH
    return {f: knote.flags & keep for (i, f), knote in kernel.knotes.items() if i == fd}
